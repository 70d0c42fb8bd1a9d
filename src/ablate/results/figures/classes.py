"""Differences from the baseline, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from ablate.results import formats
from ablate.results.classes import OfClass
from ablate.results.comparisons import Findings
from ablate.results.figures.canvas import blank, fit
from ablate.results.figures.differences import most_different
from ablate.results.figures.encoding import encode, mark
from ablate.results.figures.style import FAINT, INK, RC

MANY_CLASSES = 40  # of one figure
MANY_CONDITIONS = 6


def largest(classes: Sequence[OfClass], shown: Sequence[str]) -> list[OfClass]:
    """All classes, or the MANY_CLASSES with the largest difference where there are more."""

    def size(one: OfClass) -> float:
        found = [abs(each.difference) for each in one.comparisons if each.condition in shown]
        return float(np.nanmax(found)) if np.isfinite(found).any() else 0.0

    kept = {one.name for one in sorted(classes, key=size, reverse=True)[:MANY_CLASSES]}
    return [one for one in classes if one.name in kept]


@rc_context(RC)
def by_class(findings: Findings, classes: Sequence[OfClass]) -> Figure:
    """A row for each class: mean difference of every condition with its 95 % t interval, paired by seed."""
    ranked = sorted(
        most_different(findings.comparisons), key=lambda each: -abs(np.nan_to_num(each.difference))
    )
    names = {each.condition for each in ranked[:MANY_CONDITIONS]}
    shown = [each.condition for each in findings.comparisons if each.condition in names]
    rows, encoding = largest(classes, shown), encode(findings).only(shown)
    step = 0.62 / max(len(shown), 1)
    figure, axes = blank(0.9 + 0.16 * (1 + len(shown)) * len(rows))
    axes.axvline(0, color=INK, linewidth=0.8)
    for row, one in enumerate(rows):
        found = {each.condition: each for each in one.comparisons}
        for place, condition in enumerate(shown):
            if (each := found.get(condition)) is None or not each.n:
                continue
            y, style = row + (place - (len(shown) - 1) / 2) * step, encoding.looks[condition]
            line: dict[str, Any] = {"color": style.color, "linewidth": 1.4, "solid_capstyle": "butt"}
            axes.plot(each.interval, (y, y), **line)
            axes.plot(each.difference, y, **{**mark(style), "markersize": 4})
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [one.name for one in rows])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=FAINT, alpha=0.25, linewidth=0.6)
    metric = formats.metric_name(findings.metric).removesuffix(" (%)")
    unit = ", pp" if formats.in_percent(findings.metric) else ""
    axes.set_xlabel(f"{metric}: difference from {findings.baseline}{unit}")
    handles = [axes.plot([], [], label=name, **mark(encoding.looks[name]))[0] for name in shown]
    axes.legend(handles=handles, fontsize=8, loc="upper left", bbox_to_anchor=(1.02, 1), borderaxespad=0)
    fit(figure, axes)
    return figure
