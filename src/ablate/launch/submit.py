"""Submit runs: check all of them, freeze all of them, and add them to their study."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ablate.compose.check import check, possible
from ablate.compose.infra import read as read_infra
from ablate.compose.request import Request
from ablate.compose.study import SKIP
from ablate.compose.study import read as read_study
from ablate.errors import UserError
from ablate.execution.place import from_environment
from ablate.launch.freezing import freeze
from ablate.launch.plan import Note, Plan
from ablate.launch.slurm import queue
from ablate.launch.submission import Submission

Announce = Callable[[Path, Iterable[str]], object]  # called with the folder of runs and the signatures


def submit(
    requests: Sequence[Request],
    command: str,
    note: Note,
    announce: Announce = lambda runs_dir, signatures: None,
    *,
    portion: bool = False,
    refused: Mapping[str, str] | None = None,
) -> Submission:
    """Check every run, then freeze its configuration and add it to the study's manifest.

    Nothing is written if any run is refused. A single run without a study's name needs no manifest.
    `announce` is called before the first run is pending; see `ablate.execution.serving`.

    Args:
        requests: the runs of one command.
        command: recorded in the manifest.
        note: prints what the user should know.
        announce: called with the folder of runs and the signatures.
        portion: the command runs a part of the study; its baseline and conditions of a path may be missing.
        refused: combinations that could not be composed and are skipped, with their reasons.

    Raises:
        UserError: the first combination that cannot exist, with its overrides; a baseline that is not one of
            the study's conditions.
    """
    runs_dir = Path(read_infra(requests[0].config["infra"]).runs_dir).expanduser().resolve()
    place = from_environment()
    processes = place.world_size if place else None
    impossible: dict[str, str] = {}
    if read_study(requests[0].config["study"]).impossible == SKIP:
        requests, impossible = _skipping(requests, processes, note)
        for levels, reason in (refused or {}).items():
            note(f"skipped, since it cannot exist: {levels}: {reason}")
        impossible |= refused or {}
    else:
        for problem in check(requests, processes):
            note(f"{problem}: these runs will fail, the others are trained")
    plan = Plan(requests, runs_dir, command, portion, impossible)
    planned = plan.manifest()
    plan.check(planned, note)
    configs = {
        member.signature: request.config for member, request in zip(plan.members, requests, strict=True)
    }
    runs_dir.mkdir(parents=True, exist_ok=True)
    announce(runs_dir, configs)
    submission = Submission(runs_dir, planned, configs)
    in_jobs = queue.of_study(runs_dir, planned.name).live
    for name, config in configs.items():
        retry = config["infra"]["retry_failed"]
        submission.add(name, freeze(submission.folder(name), config, queued=name in in_jobs, retry=retry))
    if len(configs) > 1 or requests[0].config["study"]["name"]:
        submission.manifest = plan.save(note)
    return submission


def _skipping(
    requests: Sequence[Request], processes: int | None, note: Note
) -> tuple[list[Request], dict[str, str]]:
    """Return the runs that can exist, and the reasons of the combinations that cannot.

    Raises:
        UserError: none can.
    """
    found, skipped = possible(requests, processes)
    if not found:
        raise UserError(f"no run can exist: {skipped[0][1]}", "change what this says of every run")
    for levels, reason in skipped:
        note(f"skipped, since it cannot exist: {levels}: {reason}")
    return found, dict(skipped)
