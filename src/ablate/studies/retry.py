"""Runs that failed, were lost, damaged, interrupted or are stale, computed once more as they were frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ablate import plugins
from ablate.errors import UserError, unknown
from ablate.execution.interruption import FAILURE
from ablate.execution.serving import served
from ablate.launch.plan import Note
from ablate.launch.resubmit import resubmit
from ablate.launch.study import Launch, start
from ablate.store import damage, jobs, manifest
from ablate.store.folder import DAMAGED, FINISHED, RUNNING, RunFolder
from ablate.studies import states
from ablate.studies.states import AGAIN, STALE, Overview, Standing


class Chosen(NamedTuple):
    """Signatures of runs to compute again.

    Attributes:
        again: all of them.
        anew: those that have finished, of which the result is kept in attempts/N.
    """

    again: frozenset[str]
    anew: frozenset[str]


def select(runs_dir: Path, study: str, which: Sequence[str] = (), runs: Sequence[str] = ()) -> Chosen:
    """Choose the runs to compute again.

    Args:
        runs_dir: folder of the runs.
        study: its name.
        which: states of the runs; everything that did not end well if neither this nor `runs` is given. With
            `damaged`, every byte of the finished runs is read; `stale` are finished runs that other code than
            today's computed.
        runs: beginnings of signatures; they may have finished.

    Raises:
        UserError: no such study or run, or a run that is still running.
    """
    overview = states.of_study(runs_dir, study)
    chosen = overview.select(which or (() if runs else AGAIN))
    if DAMAGED in which:
        chosen += [standing for standing in overview.select([FINISHED]) if _changed(runs_dir, standing)]
    anew = [standing for standing in overview.runs if standing.stale] if STALE in which else []
    named = [_named(overview, beginning) for beginning in runs]
    anew += [standing for standing in named if standing.state == FINISHED]
    return Chosen(
        frozenset(standing.run.signature for standing in (*chosen, *anew, *named)),
        frozenset(standing.run.signature for standing in anew),
    )


def retry(
    runs_dir: Path,
    study: str,
    chosen: Chosen,
    changes: Mapping[str, Any],
    launch: Launch,
    note: Note,
) -> int:
    """Submit runs again, start them, and return an exit code: 0 if all of them ended well or are in jobs.

    Args:
        runs_dir: folder of the runs.
        study: its name.
        chosen: the runs.
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
            chosen.again,
            changes,
            note,
            announce=lambda folder, runs: stack.enter_context(served(folder, runs)),
            anew=chosen.anew,
        )
        code = start(submission, launch)
    return code or (FAILURE if len(submission.configs) < len(chosen.again) else 0)


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
    if (names := changes.get("infra.plugins")) is not None:
        listed = [names] if isinstance(names, str) else names
        changes["infra.plugins"] = [plugins.absolute(str(name)) for name in listed]
    return changes


def _changed(runs_dir: Path, standing: Standing) -> bool:
    return bool(damage.find_changed(RunFolder(runs_dir / standing.run.signature)))


def _named(overview: Overview, beginning: str) -> Standing:
    known = [standing for standing in overview.runs if standing.run.signature.startswith(beginning)]
    if len(known) != 1:
        signatures = [standing.run.signature for standing in overview.runs]
        if known:
            raise UserError(f"{len(known)} runs begin with {beginning}", "give more of the signature")
        raise unknown("run", beginning, signatures)
    if known[0].state == RUNNING:
        raise UserError(f"run {beginning} is running", "wait until it has ended, or cancel it")
    return known[0]
