"""Encoding of conditions in a figure: each by its own look, or by the levels of its factors."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from ablate.results import conditions
from ablate.results.comparisons import Findings
from ablate.results.figures.style import COLORS, INK, LINES, MARKERS, PAPER, Look, looks

LONG_NAME, MANY_NAMES = 24, 8  # beyond either, names are in a legend and not at their marks
BASELINE: dict[str, Any] = {"marker": "o", "markersize": 15, "markerfacecolor": "none", "color": INK}
BASELINE_WIDTH = 3.2  # of its line, where it has no colour of its own
LINE, BELOW = 0.19, 0.5  # inches: of a legend, and from the axes to it


@dataclass(frozen=True)
class Encoding:
    """The look of every condition.

    Few conditions have each its own. Many conditions made of two or three factors share theirs: the
    levels of the first factor are colours (the baseline's is black), those of the second markers and
    lines, those of the third full and hollow marks, or panels.
    """

    baseline: str
    looks: dict[str, Look]
    levels: dict[str, dict[str, Look]] = field(default_factory=dict)  # by factor; none: looks of their own
    panels: dict[str, str] = field(default_factory=dict)  # title, by condition

    @property
    def direct(self) -> bool:
        """Return True if names are few and short enough to be written beside the marks."""
        few = len(self.looks) <= MANY_NAMES and max(map(len, self.looks)) <= LONG_NAME
        return few and not self.levels

    def only(self, shown: Iterable[str]) -> Encoding:
        """Return the encoding restricted to these conditions."""
        return replace(self, looks={name: self.looks[name] for name in shown})

    def legend_unless_direct(self, figure: Figure, axes: Axes, lines: bool) -> None:
        """Do as `legend`, unless the looks are named where they are drawn."""
        if not self.direct:
            self.legend(figure, axes, lines)

    def legend(self, figure: Figure, axes: Axes, lines: bool) -> None:
        """Name all looks in a legend below the axes, in a figure made higher by as much."""
        columns = self._factor_columns(lines) if self.levels else self._condition_columns(lines)
        height = max(map(len, columns))
        figure.set_figheight(figure.get_figheight() + LINE * height)
        padded = [column + [_blank()] * (height - len(column)) for column in columns]
        handles = [handle for column in padded for handle in column]
        below = axes.transAxes + ScaledTranslation(0, -BELOW, figure.dpi_scale_trans)
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0, 0), "bbox_transform": below}
        legend = axes.legend(handles=handles, ncols=len(columns), fontsize=8, borderaxespad=0, **place)
        for text in legend.get_texts():
            if text.get_text() in self.levels:
                text.set_fontweight("bold")

    def _condition_columns(self, lines: bool) -> list[list[Line2D]]:
        found = [_handle(style, name, lines) for name, style in self.looks.items()]
        count = 2 if max(map(len, self.looks)) <= 1.5 * LONG_NAME else 1
        height = math.ceil(len(found) / count)
        return [found[start : start + height] for start in range(0, len(found), height)]

    def _factor_columns(self, lines: bool) -> list[list[Line2D]]:
        named = [levels for levels in self.levels if not (lines and levels == self._panelled)]
        columns = [
            [_blank(factor), *(_handle(look, level, lines) for level, look in self.levels[factor].items())]
            for factor in named
        ]
        ring = {**BASELINE, "markersize": 9, "linestyle": ""}
        options = {"color": INK, "linewidth": BASELINE_WIDTH} if lines else ring
        min(reversed(columns), key=len).append(Line2D([], [], label="baseline", **options))
        return columns

    @property
    def _panelled(self) -> str | None:
        return list(self.levels)[2] if len(self.levels) > 2 else None


def encode(findings: Findings) -> Encoding:
    """Choose the encoding of a study's conditions."""
    names = [summary.condition for summary in findings.summaries]
    own = Encoding(findings.baseline, looks(names, findings.baseline))
    if own.direct:
        return own
    cells, levels = _cells(findings)
    if not 2 <= len(levels) <= 3 or set(cells) != set(names):
        return own
    halved = [factor for factor in levels if len(levels[factor]) == 2]
    if len(levels) == 3 and halved:  # the one that is shown by full and hollow marks comes last
        levels[halved[-1]] = levels.pop(halved[-1])
    room = (len(COLORS), min(len(MARKERS), len(LINES)), 2)
    if any(len(found) > most for found, most in zip(levels.values(), room, strict=False)):
        return own
    return Encoding(findings.baseline, *_by_factor(cells, levels, findings.baseline))


def _cells(findings: Findings) -> tuple[dict[str, dict[str, str]], dict[str, list[str]]]:
    """The level of every varied factor, by condition; and all levels, by factor."""
    factors = findings.manifest.factors
    short = dict(zip(factors, conditions.short_names(factors), strict=True))
    rows = findings.runs.drop_duplicates("condition")
    cells: dict[str, dict[str, str]] = {name: {} for name in rows["condition"]}
    levels = {}
    for factor in factors:
        column = rows[factor].astype(str)
        called = conditions.short_levels(column)
        if len(called) > 1:
            levels[short[factor]] = list(called.values())
            for name, level in zip(rows["condition"], column, strict=True):
                cells[name][short[factor]] = called[level]
    return cells, levels


def _by_factor(
    cells: dict[str, dict[str, str]], levels: dict[str, list[str]], baseline: str
) -> tuple[dict[str, Look], dict[str, dict[str, Look]], dict[str, str]]:
    first, second, *third = levels
    colors = {level: look.color for level, look in looks(levels[first], cells[baseline][first]).items()}
    if len(set(colors.values())) < len(colors):
        colors = dict(zip(levels[first], COLORS, strict=False))
    shown = {
        first: {level: Look(colors[level], "o", LINES[0]) for level in levels[first]},
        second: {
            level: Look(INK, MARKERS[place], LINES[place]) for place, level in enumerate(levels[second])
        },
    }
    for factor in third:
        full, hollow = levels[factor]
        shown[factor] = {full: Look(INK, "o", LINES[0]), hollow: Look(INK, "o", LINES[0], filled=False)}
    found, panels = {}, {}
    for name, cell in cells.items():
        color, shape = shown[first][cell[first]], shown[second][cell[second]]
        filled = all(shown[factor][cell[factor]].filled for factor in third)
        found[name] = Look(color.color, shape.marker, shape.line, filled)
        panels[name] = ", ".join(f"{factor}={cell[factor]}" for factor in third)
    return found, shown, panels


def mark(look: Look, size: float = 8) -> dict[str, Any]:
    """Options of a condition's mark, for `Axes.plot`; its size in points."""
    shape = {"marker": look.marker, "color": look.color}
    if look.filled:
        return {**shape, "markersize": size, "markeredgecolor": PAPER}
    hollow = {"markerfacecolor": PAPER, "markeredgecolor": look.color, "markeredgewidth": 1.5}
    return {**shape, "markersize": size - 1.5, **hollow}


def _handle(look: Look, label: str, line: bool) -> Line2D:
    if line:
        return Line2D([], [], color=look.color, linestyle=look.line, label=label)
    return Line2D([], [], linestyle="", label=label, **mark(look))


def _blank(label: str = "") -> Line2D:
    return Line2D([], [], linestyle="", label=label or " ")
