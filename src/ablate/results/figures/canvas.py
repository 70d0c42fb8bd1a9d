"""What all figures share: size, margins, names beside or below, and how they are saved."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ablate.results.comparisons import Findings
from ablate.results.figures.style import FAINT, PAPER, RC, Look
from ablate.store.files import write_atomically

WIDTH = 6.4  # inches: the text width of most journals
PNG_DPI = 200
LONG_NAME, MANY_NAMES = 24, 8  # beyond either, names stand in a legend and not at their marks
MEAN: dict[str, Any] = {"markersize": 8, "markeredgecolor": PAPER}
OPTIONS: dict[str, dict[str, Any]] = {  # of files that are the same bytes whenever they are drawn
    "svg": {"metadata": dict.fromkeys(("Date", "Creator", "Format", "Type"))},
    "png": {"metadata": {"Software": None}, "dpi": PNG_DPI, "pil_kwargs": {"compress_level": 1}},
}


class Drawing(Figure):
    """A figure that a notebook shows as it is saved, whatever backend the notebook has."""

    def _repr_svg_(self) -> str:
        drawn = io.BytesIO()
        with rc_context(RC):
            self.savefig(drawn, format="svg", **OPTIONS["svg"])
        return drawn.getvalue().decode()


def save(figure: Figure, stem: Path, formats: Sequence[str] = ("svg", "png")) -> list[Path]:
    """Write `stem`.svg and `stem`.png, each whole or not at all, and return their paths."""
    paths = []
    with rc_context(RC):
        for kind in formats:
            path = stem.with_name(f"{stem.name}.{kind}")
            draw = partial(figure.savefig, format=kind, **OPTIONS[kind])
            write_atomically(path, draw)
            paths.append(path)
    return paths


def blank(height: float) -> tuple[Figure, Axes]:
    """A figure of the common width with one pair of axes; `height` in inches."""
    figure = Drawing(figsize=(WIDTH, height))
    return figure, figure.subplots()


def fit(figure: Figure, axes: Axes, pad: float = 6.0) -> None:
    """Set the margins to what lies outside the axes. (The layout engines take several drawings.)"""
    inner, outer = axes.get_window_extent(), axes.get_tightbbox()
    assert outer is not None
    width, height = figure.bbox.width, figure.bbox.height
    figure.subplots_adjust(
        left=min((inner.x0 - outer.x0 + pad) / width, 0.5),
        right=max(1 - (outer.x1 - inner.x1 + pad) / width, 0.55),
        bottom=(inner.y0 - outer.y0 + pad) / height,
        top=1 - (outer.y1 - inner.y1 + pad) / height,
    )


def direct(look: Mapping[str, Look]) -> bool:
    """Whether names are few and short enough to stand beside what they name."""
    return len(look) <= MANY_NAMES and max(map(len, look)) <= LONG_NAME


def legend_unless_direct(figure: Figure, axes: Axes, look: Mapping[str, Look], lines: bool) -> None:
    """Name all conditions in a legend below the axes, in a figure made higher by as much."""
    if direct(look):
        return
    columns = 2 if max(map(len, look)) <= 1.5 * LONG_NAME else 1
    figure.set_figheight(figure.get_figheight() + 0.19 * math.ceil(len(look) / columns))
    handles = [
        Line2D([], [], color=style.color, label=condition, **_handle(style, lines))
        for condition, style in look.items()
    ]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, -0.16), ncols=columns, fontsize=8)


def _handle(style: Look, line: bool) -> dict[str, Any]:
    return {"linestyle": style.line} if line else {"linestyle": "", "marker": style.marker}


def say(axes: Axes, text: str) -> None:
    """Write into empty axes why they are empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=FAINT)
    axes.set_xticks([])
    axes.set_yticks([])


def conditions(findings: Findings) -> list[str]:
    """The conditions of a study, in its order."""
    return [summary.condition for summary in findings.summaries]
