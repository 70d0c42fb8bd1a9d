"""Factorial studies: main effects, and how two factors act together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from ablate.results import formats
from ablate.results.comparisons import Findings
from ablate.results.factorial import Factorial
from ablate.results.figures.canvas import WIDTH, Drawing
from ablate.results.figures.style import FAINT, INK, PAPER, RC, factor_color

EVEN = "cividis"  # perceptually even, and the same to the colour-blind
ON_DARK, ON_LIGHT = "#ffffff", "#0b0b0d"  # neither paper nor ink, which a dark page replaces
LONG_LEVEL = 16  # characters, beyond which the items of a list are below each other
NAME, NAME_WIDTH = 8, 0.068  # a level's name: its size in points, a character's share of it in inches


@rc_context(RC)
def main_effects(findings: Findings, factorial: Factorial) -> Figure:
    """Main effect of each level, averaged over all others: mean and 95 % interval, paired by seed."""
    counts = [len(levels) for levels in factorial.levels.values()]
    figure = Drawing(figsize=(WIDTH, 3.1))
    grid = figure.subplots(1, len(counts), sharey=True, squeeze=False, width_ratios=[n + 0.5 for n in counts])
    digits = formats.decimals(level.difference_interval for level in factorial.marginal)
    for axes, factor in zip(grid[0], factorial.factors, strict=True):
        levels = [level for level in factorial.marginal if level.factor == factor]
        color = factor_color(factor)
        axes.axhline(0, color=INK, linewidth=0.8)
        heights = [0.0 if math.isnan(level.difference) else level.difference for level in levels]
        axes.plot(range(len(levels)), heights, color=color, linewidth=1, alpha=0.5)
        for place, (level, height) in enumerate(zip(levels, heights, strict=True)):
            reference = level.level == level.reference
            axes.plot((place, place), level.difference_interval, color=color, linewidth=2)
            face = PAPER if reference else color
            axes.plot(place, height, "o", color=color, markerfacecolor=face, markersize=7, zorder=3)
            if not reference:
                text = formats.signed(level.difference, digits)
                axes.annotate(
                    text,
                    (place, height),
                    (6, 3 if height >= 0 else -9),
                    textcoords="offset points",
                    fontsize=7.5,
                )
        room = (WIDTH - 0.8) * (len(levels) + 0.5) / sum(count + 0.5 for count in counts)
        _name_levels(axes, [level.level for level in levels], room)
        axes.set_xlim(-0.5, len(levels) - 0.2)
        axes.set_title(factor, loc="left", fontsize=9, color=color, fontweight="bold")
        axes.grid(axis="y", color=FAINT, alpha=0.25, linewidth=0.6)
    unit = ", pp" if formats.in_percent(findings.metric) else ""
    name = formats.metric_name(findings.metric).removesuffix(" (%)")
    grid[0, 0].set_ylabel(f"{name}: change{unit}")
    figure.tight_layout(pad=0.6)
    return figure


@rc_context(RC)
def heat_map(findings: Findings, factorial: Factorial) -> Figure:
    """Mean of every pair of levels, averaged over the other factors; one panel a pair of factors."""
    pairs = list(itertools.combinations(factorial.factors, 2))
    tables = [_table(factorial, a, b) for a, b in pairs]
    columns = min(len(pairs), 2)
    height = max(len(factorial.levels[a]) for a, _ in pairs)
    lines = math.ceil(len(pairs) / columns)
    figure = Drawing(figsize=(WIDTH, lines * (1.25 + 0.36 * height)))
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in grid[len(pairs) :]:
        axes.set_visible(False)
    figures = np.concatenate([table.ravel() for table in tables])
    scale = Normalize(np.nanmin(figures), np.nanmax(figures))
    digits = formats.decimals(level.difference_interval for level in factorial.marginal)
    for axes, (a, b), table in zip(grid, pairs, tables, strict=False):
        axes.imshow(table, cmap=EVEN, norm=scale, aspect="auto")
        for (row, column), mean in np.ndenumerate(table):
            shade = INK  # of a cell that is missing: on the page's own colour
            if math.isfinite(mean):
                shade = ON_DARK if scale(mean) < 0.55 else ON_LIGHT
            text = formats.plain(float(mean), digits)
            axes.text(column, row, text, ha="center", va="center", color=shade, fontsize=8)
        names = [_lines(level) for level in factorial.levels[a]]
        axes.set_yticks(range(len(names)), names, fontsize=NAME)
        _name_levels(axes, factorial.levels[b], WIDTH / columns - 1.5)
        axes.set_ylabel(a, color=factor_color(a), fontweight="bold")
        axes.set_xlabel(b, color=factor_color(b), fontweight="bold")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    figure.suptitle(f"{formats.metric_name(findings.metric)}, mean", x=0.01, ha="left", fontsize=9)
    figure.tight_layout(pad=0.6)
    return figure


def _table(factorial: Factorial, a: str, b: str) -> np.ndarray:
    """(levels of a, levels of b): mean over the cells that are there; NaN where none is."""
    at, bt = (factorial.factors.index(factor) for factor in (a, b))
    found = [
        [
            [mean for cell, mean in factorial.cells.items() if (cell[at], cell[bt]) == (row, column)]
            for column in factorial.levels[b]
        ]
        for row in factorial.levels[a]
    ]
    return np.array([[np.mean(cells) if cells else math.nan for cells in row] for row in found])


def _name_levels(axes: Axes, levels: Sequence[str], room: float) -> None:
    """Names below, slanted where they would touch in `room` inches."""
    names = [_lines(level) for level in levels]
    widest = max(len(line) for name in names for line in name.splitlines())
    options: dict[str, Any] = {"fontsize": NAME}
    if widest * NAME_WIDTH > room / len(levels):
        options |= {"rotation": 30, "ha": "right", "va": "top", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(levels)), names, **options)


def _lines(level: str) -> str:
    """A level's name, a list that is long an item a line."""
    return level.replace(",", ",\n") if len(level) > LONG_LEVEL else level
