"""Images with their labels, and with what a network finds in them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from ablate.results.examples import Answer
from ablate.results.figures.canvas import WIDTH, Drawing
from ablate.results.figures.style import RC

PALETTE = "tab20"  # of classes; the twenty-first has the first one's colour
OPACITY = 0.55
TITLES = ("labels", "predictions")
SIDE = 1.7  # inches, of an image at most
ROW = 0.2  # inches, of a row of the legend
NAMES_IN_A_ROW = 5
LETTERS = 14  # of a title, in an inch


@rc_context(RC)
def predictions(
    images: Sequence[NDArray[np.float32]],
    answers: Sequence[Sequence[Answer]],
    names: Sequence[str] = (),
    titles: Sequence[str] = TITLES,
) -> Figure:
    """Images to the left, one row each, their labels beside them, and predictions.

    Args:
        images: (H, W) or (H, W, 3) each, between 0 and 1.
        answers: of each image, its labels and one or more predictions.
        names: of the classes; numbers in the legend where there are none.
        titles: of the answers.
    """
    present = sorted(set().union(*(answer.present for row in answers for answer in row)))
    rows, columns = len(images), 1 + len(titles)
    legend = -(-len(present) // NAMES_IN_A_ROW) * ROW + 0.1
    side = min(WIDTH / columns, SIDE)
    wrapped = ["image", *(textwrap.fill(title, int(side * LETTERS)) for title in titles)]
    top = 0.15 + 0.14 * max(title.count("\n") + 1 for title in wrapped)
    heights = [side * min(image.shape[0] / image.shape[1], 2) for image in images]
    figure = Drawing(figsize=(side * columns, sum(heights) + legend + top))
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    for title, axes in zip(wrapped, grid[0], strict=True):
        axes.set_title(title, fontsize=8, parse_math=False)
    for row, (image, found) in enumerate(zip(images, answers, strict=True)):
        for place, axes in enumerate(grid[row]):
            axes.imshow(image, cmap="gray", vmin=0, vmax=1)
            if place:
                _draw(axes, found[place - 1], image.shape[:2])
    for axes in grid.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    height = figure.get_figheight()
    figure.subplots_adjust(
        left=0.01, right=0.99, bottom=legend / height, top=1 - (top - 0.05) / height, wspace=0.04, hspace=0.04
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
