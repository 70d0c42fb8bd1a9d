"""Forest plots: what each condition differs by from the baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from ablate.results import formats, verdicts
from ablate.results.comparisons import Comparison, Findings
from ablate.results.figures.canvas import blank, fit, say
from ablate.results.figures.encoding import LONG_NAME, encode, mark
from ablate.results.figures.style import COLORS, FAINT, GAIN, INK, LOSS, RC
from ablate.results.verdicts import Verdict

MANY_ROWS = 60  # of one figure
MANY_SEEDS = 60  # beyond, their dots would be a smear
LINE = 0.19  # rows from a row's middle to its two lines of text
VERDICTS: dict[str, dict[str, Any]] = {  # shape and colour of each word
    verdicts.BETTER: {"marker": "^", "color": GAIN},
    verdicts.WORSE: {"marker": "v", "color": LOSS},
    verdicts.ON_PAR: {"marker": "s", "color": COLORS[0]},
    verdicts.UNDECIDED: {"marker": "o", "color": FAINT, "markerfacecolor": "none"},
}
LONG_LINE = 42  # characters of a condition's name, beyond which its levels are written in several lines


def most_different(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """All comparisons in the study's order, or the MANY_ROWS that differ most where there are more."""
    ranked = sorted(comparisons, key=lambda each: -abs(np.nan_to_num(each.difference)))[:MANY_ROWS]
    shown = {each.condition for each in ranked}
    return [each for each in comparisons if each.condition in shown]


@rc_context(RC)
def forest(findings: Findings) -> Figure:
    """Differences from the baseline: mean, intervals, every seed's difference, margin and verdict."""
    compared = most_different(findings.comparisons)
    look = encode(findings).looks
    digits = formats.decimals(comparison.interval for comparison in compared)
    figure, axes = blank(0.9 + 0.42 * max(len(compared), 1))
    axes.axvline(0, color=INK, linewidth=0.8)
    margin = findings.margin
    if math.isfinite(margin.value):
        axes.axvspan(-margin.value, margin.value, color=FAINT, alpha=0.18, linewidth=0)
    for row, comparison in enumerate(compared):
        style = look[comparison.condition]
        below = row + 0.24 + 0.05 * (np.arange(len(comparison.differences)) % 3)
        seed: dict[str, Any] = {"color": style.color, "alpha": 0.75, "markersize": 3, "markeredgewidth": 0}
        if comparison.n <= MANY_SEEDS and comparison.differences:
            axes.plot(comparison.differences, below, "o", **seed)
        ends: dict[str, Any] = {"marker": "|", "markersize": 8, "linewidth": 0.8, "color": style.color}
        axes.plot(comparison.simultaneous, (row, row), **ends)
        axes.plot(comparison.interval, (row, row), color=style.color, linewidth=2, solid_capstyle="butt")
        axes.plot(comparison.difference, row, **mark(style))
        figures = formats.interval(comparison.interval, digits)
        text = f"{formats.signed(comparison.difference, digits)} {figures}" if comparison.n else "no pair yet"
        beside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 8}
        if comparison.n and comparison.verdict is not None:
            axes.text(1.02, row - LINE, text, **beside)
            shape = {**VERDICTS[comparison.verdict.word], "markersize": 5, "clip_on": False}
            axes.plot(1.035, row + LINE, transform=axes.get_yaxis_transform(), **shape)
            axes.text(1.065, row + LINE, briefly(comparison.verdict), **beside)
        else:
            axes.text(1.02, row, text, **beside)
    axes.set_ylim(max(len(compared), 1) - 0.4, -0.6)
    axes.set_yticks(range(len(compared)), [wrapped(comparison.condition) for comparison in compared])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=FAINT, alpha=0.25, linewidth=0.6)
    metric = formats.metric_name(findings.metric).removesuffix(" (%)")
    unit = ", pp" if formats.in_percent(findings.metric) else ""
    before = " " if len(findings.baseline) <= LONG_NAME else "\n"
    band = f"\nband: margin ±{margin.text}{f' ({margin.mark})' if margin.mark else ''}"
    axes.set_xlabel(
        f"{metric}: difference from{before}{wrapped(findings.baseline)}{unit}"
        f"{band if math.isfinite(margin.value) else ''}"
    )
    if not compared:
        say(axes, "only one condition: nothing to compare")
    elif not any(comparison.n for comparison in compared):
        axes.set_xticks([0])
    fit(figure, axes)
    return figure


def briefly(verdict: Verdict) -> str:
    """A verdict in two words."""
    return f"{verdict.word}, measurable" if verdict.negligible else verdict.word


def wrapped(condition: str, letters: int = LONG_LINE) -> str:
    """A condition's name in lines of so many characters, broken between its levels."""
    lines = [""]
    for level in condition.split(", "):
        if lines[-1] and len(lines[-1]) + len(level) > letters:
            lines[-1] += ","
            lines.append(level)
        else:
            lines[-1] += f", {level}" if lines[-1] else level
    return "\n".join(lines)
