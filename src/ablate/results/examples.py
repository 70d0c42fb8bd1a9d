"""Test images of a run with their labels and predictions, small, for pictures in a report.

The file examples.npz has no pickles: `names` of the classes, and of image i `i.image` and each part of its
labels and predictions, such as `i.predictions.boxes`. Masks are packed into bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ablate.store.files import Guard, write_atomically

LONGEST = 320  # pixels, of a side of a kept image
MARK, PACKED = "masks", "masks_shape"


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


class Example(NamedTuple):
    """A test image."""

    image: NDArray[np.uint8]  # (H, W) or (H, W, 3)
    labels: Answer
    predictions: Answer


class Examples(NamedTuple):
    """Test images of a run."""

    images: list[Example]
    names: list[str]  # of the classes; may be empty


def write(path: Path, examples: Examples, guard: Guard = nullcontext) -> None:
    """Write examples, whole or not at all, images of more than 320 pixels made smaller."""
    arrays: dict[str, NDArray[Any]] = {"names": np.array(examples.names, dtype=np.str_)}
    for number, (image, *answers) in enumerate(examples.images):
        rows, columns = (_kept(side, max(image.shape[:2])) for side in image.shape[:2])
        arrays[f"{number}.image"] = image[np.ix_(rows, columns)]
        factors = [len(columns) / image.shape[1], len(rows) / image.shape[0]] * 2
        for kind, answer in zip(Example._fields[1:], answers, strict=True):
            arrays |= {
                f"{number}.{kind}.{name}": array for name, array in _small(answer, rows, columns, factors)
            }
    write_atomically(path, lambda stream: np.savez_compressed(stream, allow_pickle=False, **arrays), guard)


def read(path: Path) -> Examples | None:
    """Return the examples of a file; None if it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = dict(found)
        count = sum(name.endswith(".image") for name in arrays)
        images = [
            Example(
                arrays[f"{number}.image"],
                *(_answer(arrays, f"{number}.{kind}.") for kind in Example._fields[1:]),
            )
            for number in range(count)
        ]
        return Examples(images, [str(name) for name in arrays["names"]])
    except Exception:  # of whatever reading and unpacking a damaged archive meets
        return None


def _kept(side: int, longest: int) -> NDArray[np.int64]:
    """Positions along one side that are kept."""
    count = max(1, round(side * min(1.0, LONGEST / longest)))
    return ((np.arange(count) + 0.5) * side / count).astype(np.int64)


def _small(
    answer: Answer, rows: NDArray[np.int64], columns: NDArray[np.int64], factors: Sequence[float]
) -> list[tuple[str, NDArray[Any]]]:
    found: list[tuple[str, NDArray[Any]]] = []
    if answer.map is not None:
        found.append(("map", answer.map[np.ix_(rows, columns)].astype(np.int16)))
    if answer.boxes is not None:
        found.append(("boxes", (answer.boxes * factors).astype(np.float32)))
    if answer.classes is not None:
        found.append(("classes", answer.classes))
    if answer.masks is not None:
        masks = np.asarray(answer.masks, dtype=bool)[:, rows][:, :, columns]
        found += [(MARK, np.packbits(masks)), (PACKED, np.array(masks.shape))]
    return found


def _answer(arrays: Mapping[str, NDArray[Any]], prefix: str) -> Answer:
    parts = {field.name: arrays.get(prefix + field.name) for field in fields(Answer)}
    if (packed := parts[MARK]) is not None:
        shape = tuple(int(side) for side in arrays[prefix + PACKED])
        parts[MARK] = np.unpackbits(packed, count=int(np.prod(shape))).reshape(shape).astype(bool)
    return Answer(**parts)
