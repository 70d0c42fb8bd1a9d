"""One file of annotations in COCO's format, checked from beginning to end when it is read."""

from __future__ import annotations

import gc
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablate.data.contract import Truth
from ablate.data.outlines import OutlineError, Outlines
from ablate.errors import UserError

PARTS = ("images", "annotations", "categories")
CORRECT = "correct the file, or export it again"
MOST = 2**31  # pixels of an image, for pycocotools
FARTHEST = 1e9  # number in a box or of an area
FILES = 4  # that stay in memory for the next run of this process


@dataclass(frozen=True)
class Annotations:
    """The images of one file, in the order of their ids, and their objects.

    Attributes:
        paths: of the image files.
        sizes: (N, 2), height and width.
        first: (N + 1,); the objects of image i are those from first[i] to before first[i + 1].
        boxes: (M, 4): left, top, width, height.
        classes: (M,), places of the categories' ids in ascending order.
        areas: (M,), pixels.
        crowd: (M,).
        learned: (M,), chosen as in mmdetection: not crowds, with an area, a pixel or more wide and high, and
            in the image.
        outlines: of the objects.
        categories: names by id.
    """

    paths: list[str]
    sizes: NDArray[np.int64]
    first: NDArray[np.int64]
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    learned: NDArray[np.bool_]
    outlines: Outlines
    categories: dict[int, str]

    def size(self, image: int) -> tuple[int, int]:
        """Height and width of an image."""
        height, width = self.sizes[image].tolist()
        return height, width

    def masks(self, image: int, objects: Iterable[int]) -> list[dict[str, Any]]:
        """Run-length encodings of some objects of an image."""
        return [self.outlines.encoded(number, *self.size(image)) for number in objects]

    def truth(self, image: int) -> Truth:
        """All objects of an image."""
        objects = slice(self.first[image], self.first[image + 1])
        return Truth(
            self.size(image),
            self.boxes[objects].copy(),  # of arrays that all runs of this process share
            self.classes[objects].copy(),
            self.masks(image, range(objects.start, objects.stop)),
            self.areas[objects].copy(),
            self.crowd[objects].copy(),
        )

    def to_learn(self, image: int) -> list[int]:
        """Objects of an image that are learned."""
        objects = slice(self.first[image], self.first[image + 1])
        return (objects.start + np.flatnonzero(self.learned[objects])).tolist()

    def annotated(self, images: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the images that have an annotation, crowds included."""
        return images[np.diff(self.first)[images] > 0]


def read_annotations(file: Path, images: Path) -> Annotations:
    """Read and check a file of annotations and the presence of its images; kept for the next run.

    Raises:
        UserError: names the file, the entry and what is wrong with it.
    """
    try:
        state = file.stat()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}", CORRECT) from error
    with _without_garbage_collection():
        return _read(str(file), str(images), state.st_mtime_ns, state.st_size)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Searching for circles among millions of new lists takes a sixth of the time, and finds none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@lru_cache(maxsize=FILES)
def _read(file: str, folder: str, changed: int, size: int) -> Annotations:
    parts = _parts(file)
    categories = {
        number: str(_field(file, "category", one, "name", str))
        for number, one in _by_id(file, "category", parts["categories"]).items()
    }
    images = _by_id(file, "image", parts["images"])
    numbers = sorted(images)
    sizes = np.array([_size(file, images[number]) for number in numbers], np.int64).reshape(-1, 2)
    names = [str(_field(file, "image", images[number], "file_name", str)) for number in numbers]
    _require_images(file, folder, names)

    place = {number: at for at, number in enumerate(numbers)}
    label = {number: at for at, number in enumerate(sorted(categories))}
    entries = _by_id(file, "annotation", parts.pop("annotations"))
    for entry in entries.values():
        for name, known in (("image_id", place), ("category_id", label)):
            if _field(file, "annotation", entry, name, int) not in known:
                raise _wrong(file, "annotation", entry, f"its {name} {entry[name]} is unknown")
    ordered = sorted(entries.values(), key=lambda entry: place[entry["image_id"]])
    at = np.array([place[entry["image_id"]] for entry in ordered], np.int64)
    outlines, boxes, areas = Outlines(), np.zeros((len(ordered), 4)), np.zeros(len(ordered))
    for number, entry in enumerate(ordered):
        boxes[number] = _box(file, entry)
        try:
            outlines.add(entry.get("segmentation"), *sizes[at[number]].tolist())
        except OutlineError as error:
            raise _wrong(file, "annotation", entry, f"{error}") from error
        areas[number] = _area(file, entry)
    outlines.pack()
    for number in np.flatnonzero(np.isnan(areas)).tolist():
        from pycocotools import mask

        areas[number] = mask.area(outlines.encoded(number, *sizes[at[number]].tolist()))
    crowd = np.array([_crowd(file, entry) for entry in ordered], bool)
    return Annotations(
        paths=[os.path.join(folder, name) for name in names],  # noqa: PTH118 (118,000 of them)
        sizes=sizes,
        first=np.searchsorted(at, np.arange(len(numbers) + 1)),
        boxes=boxes,
        classes=np.array([label[entry["category_id"]] for entry in ordered], np.int64),
        areas=areas,
        crowd=crowd,
        learned=~crowd & (areas > 0) & _inside(boxes, sizes[at]),
        outlines=outlines,
        categories=categories,
    )


def require_same_categories(files: Sequence[Path], splits: Sequence[Annotations]) -> None:
    """Refuse splits of which the categories have other ids or names.

    Raises:
        UserError: with the first category that differs.
    """
    for file, split in zip(files, splits, strict=True):
        if split.categories != splits[0].categories:
            differing = sorted(set(split.categories.items()) ^ set(splits[0].categories.items()))
            number, name = differing[0]
            raise UserError(
                f"the categories of {file} are not those of {files[0]}: {number}, {name!r}, is in one only",
                "give all files the same categories with the same ids",
            )


def _inside(boxes: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return True for boxes a pixel or more wide and high that share an area with their image."""
    corner, extent = boxes[:, :2], boxes[:, 2:]
    shared = np.minimum(corner + extent, sizes[:, ::-1]) - np.maximum(corner, 0)
    fits = (extent >= 1) & (shared > 0)
    return fits[:, 0] & fits[:, 1]


def _parts(file: str) -> dict[str, list[Any]]:
    try:
        with open(file, encoding="utf-8") as text:  # noqa: PTH123
            content = json.load(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is not a readable JSON file: {error}", CORRECT) from error
    if not isinstance(content, dict) or not all(isinstance(content.get(part), list) for part in PARTS):
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise UserError(
            f"{file} is not a file of instances in COCO's format: it has {found[:200] or 'nothing'}",
            f"it needs the lists {', '.join(PARTS)}, see https://cocodataset.org/#format-data",
        )
    return {part: content[part] for part in PARTS}


def _wrong(file: str, kind: str, entry: Any, reason: str) -> UserError:
    number = entry.get("id") if isinstance(entry, dict) else None
    where = f"{kind} {number!r}" if number is not None else f"{kind} {str(entry)[:80]}"
    if kind == "annotation" and isinstance(entry, dict) and "image_id" in entry:
        where += f" of image {entry['image_id']!r}"
    return UserError(f"{file}: {where}: {reason[:300]}", CORRECT)


def _field(file: str, kind: str, entry: Any, name: str, expected: type) -> Any:
    value = entry.get(name)
    if type(value) is not expected:
        named = {int: "a whole number", str: "a text"}[expected]
        raise _wrong(file, kind, entry, f"its {name} is {value!r}, not {named}")
    return value


def _by_id(file: str, kind: str, entries: list[Any]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for entry in entries:
        if not isinstance(entry, dict):
            raise _wrong(file, kind, entry, "it is not a group of values")
        number = _field(file, kind, entry, "id", int)
        if number in found:
            raise _wrong(file, kind, entry, "another one has the same id")
        found[number] = entry
    return found


def _size(file: str, entry: dict[str, Any]) -> tuple[int, int]:
    height, width = (_field(file, "image", entry, side, int) for side in ("height", "width"))
    if min(height, width) < 1 or height * width >= MOST:
        raise _wrong(file, "image", entry, f"its size is {width}×{height}")
    return height, width


def _box(file: str, entry: dict[str, Any]) -> list[float]:
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        raise _wrong(file, "annotation", entry, f"its bbox is {box!r}, not [left, top, width, height]")
    return box


def _area(file: str, entry: dict[str, Any]) -> float:
    """Return the area as annotated; not a number if it is not annotated."""
    area = entry.get("area")
    if area is None:
        return math.nan
    if not _is_number(area):
        raise _wrong(file, "annotation", entry, f"its area is {area!r}, not a number")
    return float(area)


def _crowd(file: str, entry: dict[str, Any]) -> bool:
    crowd = entry.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise _wrong(file, "annotation", entry, f"its iscrowd is {crowd!r}, not 0 or 1")
    return bool(crowd)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -FARTHEST < value < FARTHEST


def _require_images(file: str, folder: str, names: list[str]) -> None:
    """Refuse names that no file has, or two images have; each folder is listed once."""
    if len(set(names)) < len(names):
        [(twice, _)] = Counter(names).most_common(1)
        raise UserError(f"{file}: two images have the file_name {twice!r}", CORRECT)
    listed: dict[str, set[str]] = {}
    missing = []
    for name in names:
        place, _, last = os.path.join(folder, name).rpartition(os.sep)  # noqa: PTH118
        if place not in listed:
            try:
                listed[place] = set(os.listdir(place))  # noqa: PTH208
            except OSError:
                listed[place] = set()
        if last not in listed[place]:
            missing.append(name)
    if missing:
        raise UserError(
            f"{len(missing)} of {len(names)} images of {file} are not in {folder}, the first {missing[0]}",
            "get the whole set of images, or correct the folder",
        )
