"""Panels of maps over images: what an operator looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ablate.results.figures.canvas import WIDTH, Drawing
from ablate.results.figures.style import COLORS, RC

SIGNED, UNSIGNED = "RdBu_r", "cividis"  # the colour-blind can distinguish the colours of both
Maps = NDArray[np.float32]


@dataclass(frozen=True)
class Column:
    """One column of panels: a map for every image, and the position that it belongs to, if any."""

    title: str
    maps: Maps  # (images, H, W)
    at: tuple[float, float] | None = None  # shares of height and width


@rc_context(RC)
def panels(images: Maps, columns: Sequence[Column]) -> Figure:
    """Images to the left, one row each, and maps beside them; every column has its own scale.

    Args:
        images: (N, H, W) or (N, H, W, 3), between 0 and 1.
        columns: maps that have negative entries are drawn around a white zero.
    """
    count, wide = len(images), len(columns) + 1
    side = min(WIDTH / wide, 1.3)
    figure = Drawing(figsize=(side * wide, side * count + 0.3))
    grid = figure.subplots(count, wide, squeeze=False)
    for row, image in enumerate(images):
        grid[row, 0].imshow(image, cmap="gray", vmin=0, vmax=1)
    grid[0, 0].set_title("image", fontsize=7)
    for place, column in enumerate(columns, 1):
        low, high = float(column.maps.min()), float(column.maps.max())
        bound = max(abs(low), abs(high)) or 1.0
        signed = low < 0
        scale = TwoSlopeNorm(0, -bound, bound) if signed else Normalize(0 if low < 0.5 * high else low, bound)
        grid[0, place].set_title(column.title, fontsize=7)
        for row, single in enumerate(column.maps):
            axes = grid[row, place]
            axes.imshow(single, cmap=SIGNED if signed else UNSIGNED, norm=scale)
            if column.at is not None:
                height, width = single.shape
                y, x = column.at[0] * height - 0.5, column.at[1] * width - 0.5
                axes.plot(x, y, "+", color=COLORS[1], markersize=6, markeredgewidth=1.2)
    for axes in grid.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    figure.subplots_adjust(
        left=0.01, right=0.99, bottom=0.01, top=1 - 0.3 / figure.get_figheight(), wspace=0.06, hspace=0.06
    )
    return figure
