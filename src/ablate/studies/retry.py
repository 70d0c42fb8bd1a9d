"""Runs that failed, were lost, damaged or interrupted, computed once more as they were frozen."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from ablate.errors import UserError, unknown
from ablate.execution.interruption import FAILURE
from ablate.execution.serving import served
from ablate.launch.plan import Note
from ablate.launch.resubmit import resubmit
from ablate.launch.study import Launch, start
from ablate.store import damage, jobs, manifest
from ablate.store.folder import DAMAGED, FINISHED, RUNNING, RunFolder
from ablate.studies import states
from ablate.studies.states import AGAIN, Overview, Standing


def select(runs_dir: Path, study: str, which: Sequence[str] = (), runs: Sequence[str] = ()) -> set[str]:
    """Return the signatures of the runs to compute again.

    Args:
        runs_dir: folder of the runs.
        study: its name.
        which: states of the runs; everything that did not end well if neither this nor `runs` is given. With
            `damaged`, every byte of the finished runs is read.
        runs: beginnings of signatures.

    Raises:
        UserError: no such study or run, or a run that is finished or still running.
    """
    overview = states.of_study(runs_dir, study)
    chosen = [standing.run.signature for standing in overview.select(which or (() if runs else AGAIN))]
    if DAMAGED in which:
        chosen += [s.run.signature for s in overview.select([FINISHED]) if _changed(runs_dir, s)]
    chosen += [_named(runs_dir, overview, beginning) for beginning in runs]
    return set(chosen)


def retry(
    runs_dir: Path,
    study: str,
    signatures: Collection[str],
    changes: Mapping[str, Any],
    launch: Launch,
    note: Note,
) -> int:
    """Submit runs again, start them, and return an exit code: 0 if all of them ended well or are in jobs.

    Args:
        runs_dir: folder of the runs.
        study: its name.
        signatures: of the runs.
        changes: made to the `infra` of the runs.
        launch: computes the runs that are ready.
        note: prints what the user should know.

    Raises:
        UserError: no run can be submitted.
    """
    runs_dir = runs_dir.resolve()
    planned = manifest.load(runs_dir, study)
    with ExitStack() as stack:
        submission = resubmit(
            planned,
            runs_dir,
            signatures,
            changes,
            note,
            announce=lambda folder, runs: stack.enter_context(served(folder, runs)),
        )
        code = start(submission, launch)
    return code or (FAILURE if len(submission.configs) < len(signatures) else 0)


def last_launcher(runs_dir: Path, study: str) -> str:
    """Return the launcher that a study was started with, as far as is known: slurm, or else local."""
    return "slurm" if jobs.of_study(runs_dir, study) else "local"


def read_changes(overrides: Sequence[str]) -> Mapping[str, Any]:
    """Read infra.KEY=VALUE, with values in YAML's notation.

    Raises:
        UserError: one of them is not KEY=VALUE.
    """
    changes = {}
    for override in overrides:
        key, found, text = override.partition("=")
        if not found:
            raise UserError(f"{override!r} is not KEY=VALUE", "for example infra.launcher.memory=32G")
        changes[key] = yaml.safe_load(text)
    return changes


def _changed(runs_dir: Path, standing: Standing) -> bool:
    return bool(damage.find_changed(RunFolder(runs_dir / standing.run.signature)))


def _named(runs_dir: Path, overview: Overview, beginning: str) -> str:
    known = [standing for standing in overview.runs if standing.run.signature.startswith(beginning)]
    if len(known) != 1:
        signatures = [standing.run.signature for standing in overview.runs]
        if known:
            raise UserError(f"{len(known)} runs begin with {beginning}", "give more of the signature")
        raise unknown("run", beginning, signatures)
    state = known[0].state
    if state == RUNNING or (state == FINISHED and not _changed(runs_dir, known[0])):
        raise UserError(f"run {beginning} is {state}", "a finished run is never run again")
    return known[0].run.signature
