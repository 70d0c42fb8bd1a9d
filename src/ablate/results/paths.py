"""Studies that walk from one condition to another, one factor a step: a roadmap of its gains."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ablate.errors import unknown
from ablate.results import statistics
from ablate.results.comparisons import Comparison, Findings, compare


@dataclass(frozen=True)
class Step:
    """A step from one condition of a path to the next, paired by seed; the first has no predecessor."""

    condition: str
    mean: float  # over the condition's own finished seeds
    n: int
    step: Comparison | None  # from the condition before
    so_far: Comparison | None  # from the start of the path


@dataclass(frozen=True)
class Path:
    """The steps of one walk, p-values Holm-corrected over the steps of all walks of the study."""

    name: str
    steps: tuple[Step, ...]


def analyse(findings: Findings) -> list[Path]:
    """The walks that the study declares (`study.paths`), in its order.

    Raises:
        UserError: a path names a condition that the study does not have; names the nearest one.
    """
    groups = findings.groups
    means = {summary.condition: summary for summary in findings.summaries}
    paths = []
    for name, conditions in findings.manifest.paths.items():
        for condition in conditions:
            if condition not in groups:
                raise unknown(f"condition of study.paths.{name}:", condition, groups)
        steps = [
            Step(
                condition,
                means[condition].mean,
                means[condition].n,
                compare(groups[condition], groups[before], findings.metric) if before else None,
                compare(groups[condition], groups[conditions[0]], findings.metric) if before else None,
            )
            for before, condition in zip([None, *conditions], conditions, strict=False)
        ]
        paths.append(Path(name, tuple(steps)))
    return _corrected(paths)


def _corrected(paths: list[Path]) -> list[Path]:
    """Steps that two walks share are one comparison."""
    tested = {
        (step.step.condition, step.step.baseline): step.step.p
        for path in paths
        for step in path.steps
        if step.step is not None
    }
    p = dict(zip(tested, statistics.holm(list(tested.values())), strict=True)) if tested else {}

    def correct(step: Step) -> Step:
        if step.step is None:
            return step
        corrected = float(p.get((step.step.condition, step.step.baseline), math.nan))
        return replace(step, step=replace(step.step, p_holm=corrected))

    return [Path(path.name, tuple(map(correct, path.steps))) for path in paths]
