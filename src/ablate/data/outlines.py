"""Outlines of objects as COCO's files have them: polygons, and run-length encoded masks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

CORNERS = 3  # a polygon with fewer has no area; it is left out where others are there, as in Detectron
FARTHEST = 10  # sides of the image that a polygon may be away; drawing takes time and memory of its length


class OutlineError(ValueError):
    """An outline that cannot be read; the text says why."""


class Outlines:
    """Outlines of many objects in a few arrays, which processes share without copying.

    Polygons are kept as they are and drawn when they are needed: 8 bytes per coordinate.
    """

    def __init__(self) -> None:
        self._runs: dict[int, bytes] = {}  # of the objects with a run-length encoding
        self._points: list[NDArray[np.float64]] = []  # of each polygon: x, y, x, y, …
        self._ends = [0]  # of each object: polygons up to it
        self._flat = np.zeros(0)
        self._parts = np.zeros(1, np.int64)

    def add(self, outline: object, height: int, width: int) -> None:
        """Read the outline of the next object, in an image of this size.

        Raises:
            OutlineError: it is missing or malformed.
        """
        if isinstance(outline, dict):
            self._runs[len(self._ends) - 1] = compressed(outline, height, width)
        elif isinstance(outline, list) and outline:
            self._points += _polygons(outline, FARTHEST * max(height, width))
        else:
            raise OutlineError("it has no segmentation, which the mask of an object is made from")
        self._ends.append(len(self._points))

    def pack(self) -> Outlines:
        """Put all polygons into one array, after the last `add`; return self."""
        self._flat = np.concatenate([np.zeros(0), *self._points])
        self._parts = np.cumsum([0, *(len(part) for part in self._points)])
        self._points = []
        return self

    def encoded(self, number: int, height: int, width: int) -> dict[str, Any]:
        """Return the mask of an object as COCO's run-length encoding; what is outside of the image is cut."""
        from pycocotools import mask

        if number in self._runs:
            return {"size": [height, width], "counts": self._runs[number]}
        parts = range(self._ends[number], self._ends[number + 1])
        polygons = [self._flat[self._parts[part] : self._parts[part + 1]] for part in parts]
        union: dict[str, Any] = mask.merge(mask.frPyObjects(polygons, height, width))
        return union


def _polygons(outline: list[Any], farthest: float) -> list[NDArray[np.float64]]:
    """Return the polygons with three corners or more."""
    found = []
    for polygon in outline:
        try:
            points = np.asarray(polygon, np.float64)
        except (TypeError, ValueError) as error:
            raise OutlineError(f"its polygon is not a list of numbers: {error}") from error
        if points.ndim != 1 or len(points) % 2:
            raise OutlineError("its polygon is not a list of x, y, x, y, …")
        if not (np.abs(points) <= farthest).all():  # also where it is not a number
            raise OutlineError("its polygon has points that are not numbers or are far outside of the image")
        if len(points) >= 2 * CORNERS:
            found.append(points)
    if not found:
        raise OutlineError("none of its polygons has three points: write each as x, y, x, y, …")
    return found


def compressed(outline: dict[str, Any], height: int, width: int) -> bytes:
    """Return the counts of a run-length encoding in COCO's compressed form.

    pycocotools reads beyond its memory where counts and size do not agree, so they are compared here.

    Raises:
        OutlineError: malformed, or for an image of another size.
    """
    from pycocotools import mask

    size, counts = outline.get("size"), outline.get("counts")
    if size != [height, width]:
        raise OutlineError(f"its run-length encoding is of the size {size}, not [{height}, {width}]")
    if isinstance(counts, str) and counts.isascii():
        runs, found = _runs(counts.encode()), counts.encode()
    elif isinstance(counts, list) and all(
        type(count) is int and 0 <= count <= height * width for count in counts
    ):
        runs, found = np.array(counts, np.int64), b""
    else:
        raise OutlineError(
            "its run-length encoding has counts that are neither a string nor numbers of pixels"
        )
    if (runs < 0).any() or runs.sum() != height * width:
        raise OutlineError(
            f"its run-length encoding has counts of {runs.sum()} pixels, the image has {height * width}"
        )
    if not found:
        found = mask.frPyObjects({"size": size, "counts": counts}, height, width)["counts"]
    return found


def _runs(counts: bytes) -> NDArray[np.int64]:
    """Decode a compressed string: groups of five bits, each number the difference to the last but one."""
    codes = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if not len(codes) or (codes < 0).any() or (codes > 63).any() or codes[-1] & 32:
        raise OutlineError("its run-length encoding is not in COCO's alphabet")
    last = (codes & 32) == 0
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if (lengths > 7).any():  # more than 35 bits
        raise OutlineError("its run-length encoding has a count that is too large")
    place = np.arange(len(codes)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((codes & 31) << (5 * place), starts)
    numbers -= np.where(codes[ends] & 16, 1 << (5 * lengths), 0)  # the highest bit is the sign
    for first in (1, 2):  # numbers 0, 1 and 2 are counts, each later one the difference to the last but one
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers
