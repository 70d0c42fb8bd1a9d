"""Seed noise: how one condition scatters, and how many seeds a difference needs."""

from __future__ import annotations

import math

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from scipy.special import chdtri

from ablate.results import formats, statistics
from ablate.results.comparisons import Findings, usable
from ablate.results.figures.canvas import WIDTH, Drawing, fit, say
from ablate.results.figures.style import COLORS, FAINT, INK, RC

SEEDS = (3, 5, 8, 12, 20, 30, 50)


def deviation_interval(values: np.ndarray) -> statistics.Interval:
    """The 95 % interval of the standard deviation of normal values (by the χ² distribution)."""
    degrees = values.size - 1
    if degrees < 1:
        return statistics.NO_INTERVAL
    squares = degrees * values.var(ddof=1)
    low, high = (
        chdtri(degrees, tail) for tail in ((1 - statistics.CONFIDENCE) / 2, (1 + statistics.CONFIDENCE) / 2)
    )
    return math.sqrt(squares / low), math.sqrt(squares / high)


def smallest_difference(deviation: float, seeds: int, *, paired: bool) -> float:
    """The difference that so many seeds show with a power of 80 %, in units of `deviation`'s."""
    low, high = 0.0, 100.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if statistics.power(seeds, middle, paired=paired) >= 0.8 else (middle, high)
    return high * deviation


@rc_context(RC)
def seed_noise(findings: Findings) -> Figure:
    """Left: every seed of the baseline. Right: the true difference that so many seeds show.

    The right panel supposes that both conditions scatter as the baseline does: unpaired, and paired
    with a correlation of one half within seeds.
    """
    runs = findings.runs[findings.runs["condition"] == findings.baseline]
    values = runs[usable(runs, findings.metric)][findings.metric].to_numpy(dtype=float)
    figure = Drawing(figsize=(WIDTH, 3.0))
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.5])
    if values.size < 3:
        right.set_visible(False)
        say(left, "fewer than three finished seeds")
        fit(figure, left)
        return figure
    deviation, mean = float(values.std(ddof=1)), float(values.mean())
    low, high = deviation_interval(values)
    order = np.argsort(values)
    left.axhspan(mean - deviation, mean + deviation, color=FAINT, alpha=0.2, linewidth=0)
    left.axhline(mean, color=INK, linewidth=0.8)
    left.plot(np.arange(values.size), values[order], "o", color=COLORS[0], markersize=4)
    left.set_xticks([])
    left.set_xlabel(f"{values.size} seeds, in order")
    left.set_ylabel(formats.metric_name(findings.metric))
    left.set_title(f"sd {deviation:.2f} [{low:.2f}, {high:.2f}]", loc="left", fontsize=9)
    for paired, label, color, marker in (
        (False, "unpaired", COLORS[1], "s"),
        (True, "paired, ρ = 0.5", COLORS[2], "o"),
    ):
        # With a correlation ρ within seeds differences have the variance 2σ²(1 − ρ): here σ², too.
        shown = [smallest_difference(deviation, seeds, paired=paired) for seeds in SEEDS]
        right.plot(SEEDS, shown, color=color, marker=marker, markersize=5, label=label)
    right.set_xscale("log")
    right.set_xticks(SEEDS, [str(seeds) for seeds in SEEDS])
    right.minorticks_off()
    right.set_ylim(0)
    right.set_xlabel("seeds")
    right.set_ylabel("true difference" + (", pp" if formats.in_percent(findings.metric) else ""))
    right.set_title("seen with 80 % power", loc="left", fontsize=9)
    right.grid(color=FAINT, alpha=0.25, linewidth=0.6)
    right.legend(fontsize=8)
    figure.tight_layout(pad=0.6)
    return figure
