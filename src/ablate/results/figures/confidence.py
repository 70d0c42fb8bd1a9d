"""Confidence curves: how compatible every hypothetical difference from the baseline is with the runs."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablate.results import equivalence, formats
from ablate.results.comparisons import Comparison, Findings
from ablate.results.figures.canvas import WIDTH, Drawing, fit, say
from ablate.results.figures.differences import VERDICTS, briefly, wrapped
from ablate.results.figures.style import FAINT, INK, RC
from ablate.results.statistics import CONFIDENCE, p_of_difference

MOST, ACROSS = 24, 4  # panels of a figure, of a row
POINTS = 401  # of a curve
BEYOND = 0.2  # of the half width of the 95 % interval, drawn on either side of it
LEVELS = (CONFIDENCE, equivalence.CONFIDENCE)  # whose intervals are drawn
TICKS = (1.0, 0.5, 0.05)  # p-values that are named
LETTERS = 12.5  # of a title, in an inch
PANEL, GAP, NAME = 1.1, 0.3, 0.15  # inches: height of a panel, of what is below it, of a line of its title


def curved(findings: Findings) -> list[Comparison]:
    """The comparisons that have an interval: all in their order, or the MOST that differ most."""
    found = [each for each in findings.comparisons if math.isfinite(each.standard_error)]
    ranked = sorted(found, key=lambda each: -abs(each.difference))[:MOST]
    chosen = {each.condition for each in ranked}
    return [each for each in found if each.condition in chosen]


@rc_context(RC)
def confidence_curves(findings: Findings) -> Figure:
    """A panel for each comparison: the two-sided p-value of every hypothetical difference.

    The hypotheses with a p of 0.05 or more are the 95 % interval of the table of conditions, and so for every
    other level: one curve has all intervals of a comparison. Poole (1987, doi:10.2105/AJPH.77.2.195) and
    Cumming (2007, "Inference by eye: pictures of confidence intervals and thinking about levels of
    confidence", Teaching Statistics 29) recommend it, Berrar (2017, "Confidence curves: an alternative to
    null hypothesis significance testing for the comparison of classifiers", Machine Learning 106) for
    classifiers. See `statistics.p_of_difference`.
    """
    chosen = curved(findings)
    across = min(max(len(chosen), 1), ACROSS)
    rows = max(math.ceil(len(chosen) / across), 1)
    titles = [_title(each.condition, int(LETTERS * WIDTH / across)) for each in chosen]
    lines = 1 + max((title.count("\n") + 1 for title in titles), default=1)
    panel = PANEL * (1.5 if len(chosen) <= across else 1)
    figure = Drawing(figsize=(WIDTH, 0.4 + rows * (panel + GAP + NAME * lines)))
    panels = figure.subplots(rows, across, sharey=True, squeeze=False).flatten()
    used = panels[: max(len(chosen), 1)]
    for axes in panels[len(used) :]:
        axes.remove()
    if not chosen:
        say(used[0], "no comparison has an interval yet")
        fit(figure, *used)
        return figure
    for place, (axes, each, title) in enumerate(zip(used, chosen, titles, strict=True)):
        _draw(axes, each, findings.margin.value)
        verdict = "" if each.verdict is None else f"\n{briefly(each.verdict)}"
        axes.set_title(f"{title}{verdict}", fontsize=8)
        if place % across == 0:
            axes.set_ylabel("p", fontsize=8)
        if place % across == across - 1 or place == len(chosen) - 1:
            right = axes.secondary_yaxis("right")
            right.set_yticks(TICKS, [f"{100 * (1 - p):.0f} %" for p in TICKS])
            right.set_ylabel("confidence", fontsize=8)
            right.tick_params(length=0, labelsize=7)
            right.spines[:].set_visible(False)
        if place + across >= len(chosen):
            axes.set_xlabel(
                "difference" + (", pp" if formats.in_percent(findings.metric) else ""), fontsize=8
            )
    used[0].set_yticks(TICKS, [f"{p:g}" for p in TICKS])
    used[0].set_ylim(0, 1.06)
    figure.subplots_adjust(hspace=(GAP + NAME * lines) / panel, wspace=0.12)
    fit(figure, *used)
    return figure


def _title(condition: str, letters: int) -> str:
    """A name in lines of so many characters: broken between its levels, and within those that are longer."""
    lines = wrapped(condition, letters).replace("_", "_ ").splitlines()
    return "\n".join(line.replace("_ ", "_") for long in lines for line in textwrap.wrap(long, letters))


def _draw(axes: Axes, each: Comparison, margin: float) -> None:
    """Draw one curve, between the ends of the 95 % interval, zero and the margin."""
    axes.axvline(0, color=INK, linewidth=0.8)
    ends = [0.0, *each.interval]
    if math.isfinite(margin):
        axes.axvspan(-margin, margin, color=FAINT, alpha=0.18, linewidth=0)
        ends += [-margin, margin]
    reach = BEYOND * (each.interval[1] - each.interval[0]) / 2
    low, high = min(ends) - reach, max(ends) + reach
    axes.set_xlim(low, high)
    near = np.linspace(*each.interval, POINTS)  # where the curve bends most
    at = np.unique([*np.linspace(low, high, POINTS), *near, each.difference])
    axes.plot(at, p_of_difference(at, each.difference, each.standard_error, each.degrees), color=INK)
    bar: dict[str, Any] = {"color": INK, "linewidth": 1, "solid_capstyle": "butt"}
    for confidence, interval in zip(LEVELS, (each.interval, each.interval_90), strict=True):
        axes.plot(interval, (1 - confidence, 1 - confidence), **bar)
    if each.verdict is not None:
        axes.plot(each.difference, 1, **{**VERDICTS[each.verdict.word], "markersize": 5}, zorder=3)
    axes.locator_params(axis="x", nbins=4)
    axes.tick_params(axis="x", labelsize=7)
    axes.tick_params(axis="y", length=0, labelsize=7)
    axes.grid(axis="y", color=FAINT, alpha=0.25, linewidth=0.6)
