"""Take runs out of a study. Their folders stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ablate import commands
from ablate.errors import UserError, unknown
from ablate.launch import growth
from ablate.store import manifest
from ablate.store.folder import RUNNING
from ablate.store.locks import locked
from ablate.store.manifest import LOCK, Manifest, PlannedRun
from ablate.studies import states


@dataclass(frozen=True)
class Removal:
    """Result of a removal.

    Attributes:
        removed: number of runs taken out of the study.
        left: number of runs that the study still has.
        problems: what a report of the smaller study would refuse.
    """

    removed: int
    left: int
    problems: Sequence[UserError]


def remove(runs_dir: Path, study: str, levels: Sequence[str], runs: Sequence[str]) -> Removal:
    """Take runs out of a study's manifest.

    Args:
        runs_dir: folder of the runs.
        study: its name.
        levels: FACTOR=LEVEL; a run is removed if it has all of them. Several levels of one factor are
            alternatives.
        runs: beginnings of signatures, removed as well.

    Raises:
        UserError: no such study, factor, level or run; a run is still running; nothing would be left.
    """
    planned = manifest.load(runs_dir, study)
    out = _selected(planned, levels, runs, runs_dir)
    overview = states.of_study(runs_dir, study)
    at_work = {standing.run.signature for standing in overview.select([RUNNING])}
    busy = sorted(out & (at_work | set(overview.queue.live)))
    if busy:
        raise UserError(
            f"{len(busy)} of the runs to remove are running or in a job: {', '.join(busy[:3])}",
            f"end them first: {commands.command('cancel', study, runs_dir=runs_dir)}",
        )
    with locked(manifest.study_dir(runs_dir, study) / LOCK):
        planned = manifest.load(runs_dir, study)
        left = [run for run in planned.runs if run.signature not in out]
        if not left:
            raise UserError(
                f"nothing would be left of study {study!r}",
                f"delete its folder instead: {manifest.study_dir(runs_dir, study)}",
            )
        smaller = _without_constant_factors(replace(planned, runs=left))
        smaller.save(runs_dir)
    return Removal(len(planned.runs) - len(left), len(left), list(growth.check(smaller)))


def _selected(planned: Manifest, levels: Sequence[str], runs: Sequence[str], runs_dir: Path) -> set[str]:
    if not levels and not runs:
        raise UserError(
            "no run was named",
            f"give FACTOR=LEVEL of {', '.join(planned.factors) or 'a factor'}, or --run SIGNATURE",
        )
    wanted: dict[str, set[str]] = {}
    for given in levels:
        factor, found, level = given.partition("=")
        if not found or factor not in planned.factors:
            raise unknown("factor", factor, planned.factors)
        known = dict.fromkeys(run.factors[factor] for run in planned.runs)
        if level not in known:
            raise unknown(f"level of {factor}:", level, known)
        wanted.setdefault(factor, set()).add(level)
    out = {
        run.signature
        for run in planned.runs
        if wanted and all(run.factors[factor] in level for factor, level in wanted.items())
    }
    for beginning in runs:
        named = [run.signature for run in planned.runs if run.signature.startswith(beginning)]
        if len(named) != 1:
            what = f"{len(named)} runs begin with" if named else "no run of the study begins with"
            shows = commands.command("status", planned.name, "--all", runs_dir=runs_dir)
            raise UserError(f"{what} {beginning!r}", f"{shows} shows signatures")
        out.add(named[0])
    if not out:
        shows = commands.command("status", planned.name, runs_dir=runs_dir)
        raise UserError(f"no run has all of {', '.join(levels)}", f"{shows} shows its runs")
    return out


def _without_constant_factors(planned: Manifest) -> Manifest:
    """Drop the factors that no longer vary."""
    constant = {
        factor: planned.runs[0].factors[factor]
        for factor in planned.factors
        if len({run.factors[factor] for run in planned.runs}) == 1
    }

    def varying(run: PlannedRun) -> PlannedRun:
        return replace(run, factors={key: level for key, level in run.factors.items() if key not in constant})

    return replace(
        planned,
        factors=[factor for factor in planned.factors if factor not in constant],
        baseline={key: level for key, level in planned.baseline.items() if key not in constant},
        runs=[varying(run) for run in planned.runs],
    )
