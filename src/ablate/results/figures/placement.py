"""Labels beside what they name, without overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Text
from matplotlib.transforms import Bbox, Transform

_ANGLES = (0, 180, 45, -45, 135, -135, 90, -90)  # beside a point reads best
_DISTANCES = (9, 16, 25, 36)  # points


def label_points(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    transforms: Sequence[Transform],
    texts: Sequence[str],
    taken: list[Bbox],
) -> list[Text]:
    """Label points, each at the first place around it that is free.

    Each point is drawn through its transform. `taken` holds the boxes, in pixels, that labels
    must keep off. Where nothing is free, the place that overlaps least is used.
    """
    frame = axes.get_window_extent()
    pixels = axes.figure.dpi / 72  # of a point of length
    labels: list[Text] = []
    for point, transform, text in zip(points, transforms, texts, strict=True):
        offset: dict[str, Any] = {"xycoords": transform, "textcoords": "offset points"}
        label = axes.annotate(text, point, (0, 0), va="center", **offset)
        size = label.get_window_extent()
        anchor = transform.transform(point)
        boxes = [
            _box(anchor, distance * pixels, angle, size.width, size.height)
            for distance in _DISTANCES
            for angle in _ANGLES
        ]
        box = min(boxes, key=lambda box: _cost(box, taken, frame))
        label.set_position(((box.x0 - anchor[0]) / pixels, ((box.y0 + box.y1) / 2 - anchor[1]) / pixels))
        taken.append(box)
        labels.append(label)
    return labels


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions at least `gap` apart, as near as can be to those wanted, within low and high.

    Where they do not all fit, they share the room evenly.
    """
    count = len(wanted)
    if count > 1 and gap * (count - 1) > high - low:
        gap = (high - low) / (count - 1)
    order = np.argsort(np.asarray(wanted, dtype=float), kind="stable")
    # With the gaps taken out, positions only have to ascend: pool neighbors that do not.
    pools: list[tuple[float, int]] = []
    for rank, index in enumerate(order):
        mean, size = float(wanted[index]) - gap * rank, 1
        while pools and pools[-1][0] > mean:
            other, other_size = pools.pop()
            mean, size = (mean * size + other * other_size) / (size + other_size), size + other_size
        pools.append((mean, size))
    ascending = np.repeat([mean for mean, _ in pools], [size for _, size in pools])
    positions = np.empty(count)
    positions[order] = ascending.clip(low, high - gap * (count - 1)) + gap * np.arange(count)
    return positions.tolist()


def _box(anchor: np.ndarray, distance: float, angle: float, width: float, height: float) -> Bbox:
    """A box of this size whose nearest edge or corner lies `distance` from the anchor."""
    dx, dy = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    x = anchor[0] + distance * dx + width / 2 * (np.sign(dx.round(6)) - 1)
    y = anchor[1] + distance * dy + height / 2 * (np.sign(dy.round(6)) - 1)
    return Bbox.from_bounds(x, y, width, height)


def _cost(box: Bbox, taken: Sequence[Bbox], frame: Bbox) -> float:
    """Area of a box that overlaps others or is outside of the frame."""
    outside = box.width * box.height - _shared(box, frame)
    return sum(_shared(box, other) for other in taken) + 2 * outside


def _shared(box: Bbox, other: Bbox) -> float:
    """The area that two boxes have in common."""
    width = min(box.x1, other.x1) - max(box.x0, other.x0)
    height = min(box.y1, other.y1) - max(box.y0, other.y0)
    return max(width, 0.0) * max(height, 0.0)
