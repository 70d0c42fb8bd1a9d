"""Shared parts of all figures: size, margins, and saving."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from ablate.results.figures.style import FAINT, RC
from ablate.store.files import write_atomically

WIDTH = 6.4  # inches: the text width of most journals
PNG_DPI = 200
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


def fit(figure: Figure, *axes: Axes, pad: float = 6.0) -> None:
    """Set the margins to what is outside of the axes; layout engines would need several drawings."""
    inner = Bbox.union([each.get_window_extent() for each in axes])
    outer = Bbox.union([box for each in axes if (box := each.get_tightbbox()) is not None])
    width, height = figure.bbox.width, figure.bbox.height
    figure.subplots_adjust(
        left=min((inner.x0 - outer.x0 + pad) / width, 0.5),
        right=max(1 - (outer.x1 - inner.x1 + pad) / width, 0.55),
        bottom=(inner.y0 - outer.y0 + pad) / height,
        top=1 - (outer.y1 - inner.y1 + pad) / height,
    )


def say(axes: Axes, text: str) -> None:
    """Write into empty axes why they are empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=FAINT)
    axes.set_xticks([])
    axes.set_yticks([])
