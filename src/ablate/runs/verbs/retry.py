"""`ablate retry`: runs that failed, were lost or interrupted, once more as they were frozen."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ablate.errors import UserError, unknown
from ablate.runs import launchers
from ablate.runs.submit import resubmit
from ablate.runs.verbs import states
from ablate.runs.verbs.states import AGAIN, Overview
from ablate.store import jobs
from ablate.store.folder import FINISHED, RUNNING

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
        which: states of the runs; all that did not end well if neither this nor `runs` is given.
        runs: beginnings of signatures.
        launcher: inline, local or slurm; as the study was launched last if None.
        overrides: infra.KEY=VALUE, in YAML's notation.

    Raises:
        UserError: nothing of that kind, or what cannot be.
    """
    overview = states.of_study(runs_dir, study)
    chosen = [standing.run.signature for standing in overview.select(which or (() if runs else AGAIN))]
    chosen += [_named(overview, beginning) for beginning in runs]
    if not chosen:
        kinds = " or ".join(which or AGAIN)
        print(f"{study}: no run is {kinds}; `ablate status {study}` shows them")
        return
    launcher = launcher or ("slurm" if jobs.of_study(runs_dir, study) else "local")
    submission = resubmit(runs_dir.resolve(), study, list(dict.fromkeys(chosen)), _changes(overrides))
    if code := launchers.carry_out(submission, LAUNCHERS[launcher]):
        sys.exit(code)


def _named(overview: Overview, beginning: str) -> str:
    known = [standing for standing in overview.runs if standing.run.signature.startswith(beginning)]
    if len(known) != 1:
        signatures = [standing.run.signature for standing in overview.runs]
        if known:
            raise UserError(f"{len(known)} runs begin with {beginning}", "give more of the signature")
        raise unknown("run", beginning, signatures)
    if known[0].state in (FINISHED, RUNNING):
        raise UserError(f"run {beginning} is {known[0].state}", "a finished run is never run again")
    return known[0].run.signature


def _changes(overrides: Sequence[str]) -> Mapping[str, Any]:
    changes = {}
    for override in overrides:
        key, found, text = override.partition("=")
        if not found:
            raise UserError(f"{override!r} is not KEY=VALUE", "for example infra.launcher.memory=32G")
        changes[key] = yaml.safe_load(text)
    return changes
