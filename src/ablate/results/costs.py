"""What accuracy costs: the Pareto front, and comparisons at the same budget."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

from ablate.results import statistics
from ablate.results.comparisons import Comparison, Findings, Summary, compare

MATCHED = 0.02  # relative difference of MACs up to which two conditions have the same budget


def pareto(summaries: Sequence[Summary], cost: str = "macs", higher: bool = True) -> list[str]:
    """The conditions that no other one beats: none is as good for less, or better for as much.

    Args:
        summaries: those without a mean or a cost are on no front.
        cost: `macs`, `parameters` or `memory`, of which less is better; `throughput`, of which more is.
        higher: whether a higher mean is better.
    """
    sign = -1.0 if cost == "throughput" else 1.0
    points = [
        (summary.condition, sign * getattr(summary, cost), summary.mean if higher else -summary.mean)
        for summary in summaries
        if math.isfinite(summary.mean) and math.isfinite(getattr(summary, cost))
    ]
    return [
        name
        for name, price, value in sorted(points, key=lambda point: point[1])
        if not any(
            (other <= price and better >= value) and (other < price or better > value)
            for _, other, better in points
        )
    ]


def matched(findings: Findings, tolerance: float = MATCHED) -> list[Comparison]:
    """All pairs of conditions with the same MACs within `tolerance`, paired by seed.

    Pairs with the baseline are left out: they stand among the study's own comparisons. p-values are
    Holm-corrected over the pairs listed here.
    """
    groups = dict(list(findings.runs.groupby("condition", sort=False)))
    costed = [s for s in findings.summaries if math.isfinite(s.macs) and s.condition != findings.baseline]
    found = [
        compare(groups[b.condition], groups[a.condition], findings.metric)
        for a, b in itertools.combinations(costed, 2)
        if abs(a.macs - b.macs) <= tolerance * max(a.macs, b.macs)
    ]
    corrected = statistics.holm([comparison.p for comparison in found])
    return [replace(c, p_holm=float(p)) for c, p in zip(found, corrected, strict=True)]
