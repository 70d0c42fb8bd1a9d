"""Test images that a condition gains and loses against the baseline."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure

from ablate.results.exchanged import Exchange, Exchanged, Image, Shown
from ablate.results.figures.canvas import WIDTH, Drawing
from ablate.results.figures.style import FAINT, INK, RC

ACROSS, SIDE, EDGE = 6, 0.92, 0.1  # images of a row; inches, of an image, and of the page's margin
LINE = 0.125  # inches, of a line of text
LETTERS, IN_A_LINE = 16, 88  # of a class below an image, of a heading
SIZE, HEADING = 7, 8.5  # points


@rc_context(RC)
def exchanged(shown: Shown) -> Figure:
    """Images gained, then images lost, of one condition after the other.

    Under each image: its class; the class that most of the runs of the baseline predict → that of the
    condition; the number of pairs of seeds in which the image is gained or lost.
    """
    blocks = [
        (_heading(exchange, kind), images, exchange)
        for exchange in shown.exchanges
        for kind, images in enumerate((exchange.gained, exchange.lost))
    ]
    cell = SIDE + 4.6 * LINE
    rows = [-(-len(images) // ACROSS) for _, images, _ in blocks]
    heights = [
        (block[0].count("\n") + 1.8) * 1.25 * LINE + count * cell
        for block, count in zip(blocks, rows, strict=True)
    ]
    height = EDGE + sum(heights)
    figure = Drawing(figsize=(WIDTH, height))
    top = EDGE / 2
    for (heading, images, exchange), tall, count in zip(blocks, heights, rows, strict=True):
        figure.text(EDGE / WIDTH, 1 - top / height, heading, va="top", fontsize=HEADING, fontweight="bold")
        start = top + tall - count * cell
        for place, one in enumerate(images):
            row, column = divmod(place, ACROSS)
            _draw(figure, (one, shown.pictures[one.position]), exchange, (column, start + row * cell))
        top += tall
    return figure


def _draw(
    figure: Figure, image: tuple[Exchanged, Image], exchange: Exchange, place: tuple[int, float]
) -> None:
    """Draw an image and the lines below it; `place`: its column, and its distance from the top in inches."""
    (one, pixels), names = image, exchange.names
    height, (column, top) = figure.get_figheight(), place
    pitch = (WIDTH - 2 * EDGE) / ACROSS
    left = EDGE + column * pitch
    box = (left / WIDTH, 1 - (top + SIDE) / height, SIDE / WIDTH, SIDE / height)
    axes = figure.add_axes(box)
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    before, after = _short(one.before, names), _short(one.after, names)
    answers = f"{before} → {after}"
    lines = [answers] if len(answers) <= LETTERS else [f"{before} →", after]
    texts = [(_short(one.label, names), "bold", INK), *((line, "normal", INK) for line in lines)]
    for number, (text, weight, color) in enumerate(
        [*texts, (f"{one.pairs} of {exchange.pairs} pairs", "normal", FAINT)]
    ):
        y = 1 - (top + SIDE + (number + 0.3) * LINE) / height
        figure.text(left / WIDTH, y, text, va="top", fontsize=SIZE, fontweight=weight, color=color)


def _heading(exchange: Exchange, kind: int) -> str:
    right, wrong = exchange.condition, exchange.baseline
    if kind:
        right, wrong = wrong, right
    shown = len((exchange.gained, exchange.lost)[kind])
    count = f"{shown} of {exchange.found[kind]} images" if exchange.found[kind] else "no image"
    text = f"{('Gained', 'Lost')[kind]}: right with {right}, wrong with {wrong}; {count}"
    return textwrap.fill(text, IN_A_LINE)


def _short(label: int, names: Sequence[str]) -> str:
    name = names[label] if label < len(names) else f"class {label}"
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…"
