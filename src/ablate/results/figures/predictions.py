"""Images with their labels, and with what a network finds in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from ablate.results.figures.canvas import WIDTH, Drawing
from ablate.results.figures.style import RC

PALETTE = "tab20"  # of classes; the twenty-first has the first one's colour
OPACITY = 0.55
TITLES = ("image", "labels", "predictions")
SIDE = 1.7  # inches, of an image at most
ROW = 0.2  # inches, of a row of the legend
NAMES_IN_A_ROW = 5


@dataclass(frozen=True)
class Answer:
    """Labels of an image, or predictions.

    Attributes:
        map: class of each pixel, (H, W), negative for none; None where objects are sought.
        boxes: of objects, (n, 4): left, top, right, bottom in pixels.
        classes: of objects, (n,).
        masks: of objects, (n, H, W) bool; None where only boxes are known.
    """

    map: NDArray[np.int64] | None = None
    boxes: NDArray[np.float64] | None = None
    classes: NDArray[np.int64] | None = None
    masks: NDArray[Any] | None = None

    @property
    def present(self) -> set[int]:
        """The classes that occur."""
        found = self.map if self.map is not None else self.classes
        return set() if found is None else {int(label) for label in np.unique(found) if label >= 0}


@rc_context(RC)
def predictions(
    images: Sequence[NDArray[np.float32]], pairs: Sequence[tuple[Answer, Answer]], names: Sequence[str] = ()
) -> Figure:
    """Images to the left, one row each, their labels beside them, and the predictions.

    Args:
        images: (H, W) or (H, W, 3) each, between 0 and 1.
        pairs: labels and predictions of each image.
        names: of the classes; numbers in the legend where there are none.
    """
    present = sorted(set().union(*(answer.present for pair in pairs for answer in pair)))
    rows, legend = len(images), -(-len(present) // NAMES_IN_A_ROW) * ROW + 0.1
    side = min(WIDTH / len(TITLES), SIDE)
    heights = [side * min(image.shape[0] / image.shape[1], 2) for image in images]
    figure = Drawing(figsize=(side * len(TITLES), sum(heights) + legend + 0.3))
    grid = figure.subplots(rows, len(TITLES), squeeze=False, gridspec_kw={"height_ratios": heights})
    for title, axes in zip(TITLES, grid[0], strict=True):
        axes.set_title(title, fontsize=8)
    for row, (image, pair) in enumerate(zip(images, pairs, strict=True)):
        for place, axes in enumerate(grid[row]):
            axes.imshow(image, cmap="gray", vmin=0, vmax=1)
            if place:
                _draw(axes, pair[place - 1], image.shape[:2])
    for axes in grid.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    height = figure.get_figheight()
    figure.subplots_adjust(
        left=0.01, right=0.99, bottom=legend / height, top=1 - 0.25 / height, wspace=0.04, hspace=0.04
    )
    marks = [
        Patch(color=_color(label), label=names[label] if label < len(names) else str(label))
        for label in present
    ]
    figure.legend(
        handles=marks,
        ncols=NAMES_IN_A_ROW,
        loc="lower center",
        fontsize=7,
        handlelength=1,
        columnspacing=1,
    )
    return figure


def _draw(axes: Axes, answer: Answer, size: tuple[int, int]) -> None:
    if answer.map is not None:
        tint = np.zeros((*size, 4))
        for label in answer.present:
            tint[answer.map == label] = (*_color(label), OPACITY)
        axes.imshow(tint, interpolation="nearest")
    if answer.boxes is None or answer.classes is None:
        return
    for place, (label, box) in enumerate(zip(answer.classes.tolist(), answer.boxes.tolist(), strict=True)):
        if answer.masks is not None:
            tint = np.zeros((*size, 4))
            tint[answer.masks[place]] = (*_color(label), OPACITY)
            axes.imshow(tint, interpolation="nearest")
        left, top, right, bottom = box
        frame = Rectangle((left - 0.5, top - 0.5), right - left, bottom - top)
        frame.set(fill=False, edgecolor=_color(label), linewidth=0.9)
        axes.add_patch(frame)


def _color(label: int) -> tuple[float, float, float]:
    return to_rgb(colormaps[PALETTE](label % colormaps[PALETTE].N))
