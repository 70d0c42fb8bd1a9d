"""Cost of accuracy: the Pareto front, and comparisons at the same budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ablate.results import statistics
from ablate.results.comparisons import Comparison, Findings, Summary, compare

MANY_PAIRS = 100  # beyond, a table of them says nothing
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
    front: list[str] = []
    best, at = -math.inf, math.nan  # value and price of the front's last member
    for name, price, value in sorted(points, key=lambda point: (point[1], -point[2])):
        if value > best or (value, price) == (best, at):
            front.append(name)
            best, at = value, price
    return front


def matched(findings: Findings, tolerance: float = MATCHED) -> list[Comparison] | None:
    """All pairs of conditions with the same MACs within `tolerance`, paired by seed.

    Pairs with the baseline are left out: they are among the study's own comparisons. p-values are
    Holm-corrected over the pairs listed here. None where there are more than MANY_PAIRS.
    """
    pairs = same_budget(findings, tolerance)
    if len(pairs) > MANY_PAIRS:
        return None
    groups = findings.groups
    found = [compare(groups[b], groups[a], findings.metric) for a, b in pairs]
    corrected = statistics.holm([comparison.p for comparison in found])
    return [replace(c, p_holm=float(p)) for c, p in zip(found, corrected, strict=True)]


def same_budget(findings: Findings, tolerance: float = MATCHED) -> list[tuple[str, str]]:
    """The pairs of conditions other than the baseline whose MACs are the same within `tolerance`."""
    order = [summary.condition for summary in findings.summaries]
    costed = sorted(
        (s.macs, order.index(s.condition), s.condition)
        for s in findings.summaries
        if math.isfinite(s.macs) and s.condition != findings.baseline
    )
    pairs: list[tuple[str, str]] = []
    for index, (least, place, name) in enumerate(costed):
        for macs, other, second in costed[index + 1 :]:
            if macs - least > tolerance * macs or len(pairs) > MANY_PAIRS:
                break
            pairs.append((name, second) if place < other else (second, name))
    return sorted(pairs, key=lambda pair: tuple(map(order.index, pair)))
