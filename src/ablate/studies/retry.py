"""`ablate retry`: runs that failed, were lost, damaged or interrupted, once more as they were frozen."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from ablate.commands import command
from ablate.errors import UserError, unknown
from ablate.execution.interruption import FAILURE
from ablate.execution.serving import served
from ablate.launch import launchers
from ablate.launch.submission import resubmit
from ablate.store import damage, jobs
from ablate.store.folder import DAMAGED, FINISHED, RUNNING, RunFolder
from ablate.studies import states
from ablate.studies.states import AGAIN, Overview, Standing

LAUNCHERS = {
    "inline": launchers.run_inline,
    "local": launchers.run_in_workers,
    "slurm": launchers.hand_in,
}


def retry(
    runs_dir: Path,
    study: str,
    which: Sequence[str] = (),
    runs: Sequence[str] = (),
    launcher: str | None = None,
    overrides: Sequence[str] = (),
) -> None:
    """Run again what has not ended well.

    Args:
        which: states of the runs; all that did not end well if neither this nor `runs` is given. With
            `damaged`, every byte of the finished runs is read.
        runs: beginnings of signatures.
        launcher: inline, local or slurm; as the study was launched last if None.
        overrides: infra.KEY=VALUE, in YAML's notation.

    Raises:
        UserError: nothing of that kind, or what cannot be.
    """
    overview = states.of_study(runs_dir, study)
    chosen = [standing.run.signature for standing in overview.select(which or (() if runs else AGAIN))]
    if DAMAGED in which:
        chosen += [s.run.signature for s in overview.select([FINISHED]) if _changed(runs_dir, s)]
    chosen += [_named(runs_dir, overview, beginning) for beginning in runs]
    if not chosen:
        kinds = " or ".join(which or AGAIN)
        print(f"{study}: no run is {kinds}; `{command('status', study, runs_dir=runs_dir)}` shows them")
        return
    launcher = launcher or ("slurm" if jobs.of_study(runs_dir, study) else "local")
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    with ExitStack() as stack:
        submission = resubmit(
            runs_dir.resolve(),
            study,
            set(chosen),
            _changes(overrides),
            note=console.print,
            announce=lambda folder, runs: stack.enter_context(served(folder, runs)),
        )
        code = launchers.carry_out(submission, LAUNCHERS[launcher])
    if code or len(submission.configs) < len(set(chosen)):
        sys.exit(code or FAILURE)


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


def _changes(overrides: Sequence[str]) -> Mapping[str, Any]:
    changes = {}
    for override in overrides:
        key, found, text = override.partition("=")
        if not found:
            raise UserError(f"{override!r} is not KEY=VALUE", "for example infra.launcher.memory=32G")
        changes[key] = yaml.safe_load(text)
    return changes
