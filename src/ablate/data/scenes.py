"""Scenes: several items of clothing on a cluttered ground, with masks, boxes and a map of classes.

All arithmetic is of whole numbers and each scene has a generator of its own, so that a scene is the same,
byte for byte, on every machine.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SIDE = 64  # height and width of a scene
IGNORED = 255  # in a map: pixels that belong to no class
SMALLEST, LARGEST = 20, 40  # height and width of an item
MOST = 4  # items in a scene
VISIBLE = 4  # an item of which less than a quarter is visible is no instance
CELL = 16  # pixels between the nodes of the ground's brightness

Map = NDArray[np.uint8]


class Scene(NamedTuple):
    """One scene. Masks and boxes are of what is visible; class c of the items is c + 1 in the map."""

    image: Map  # (64, 64)
    map: Map  # (64, 64): 0 the ground, 1 to 10 the items, 255 to be ignored
    masks: NDArray[np.bool_]  # (n, 64, 64)
    classes: NDArray[np.int64]  # (n,)
    boxes: NDArray[np.int64]  # (n, 4): left, top, right, bottom, the last two beyond the item


def scene(items: Map, labels: NDArray[np.integer], key: tuple[int, ...]) -> Scene:
    """Compose a scene.

    Args:
        items: images to choose from, (N, 28, 28), bright on 0.
        labels: their classes, (N,).
        key: numbers that the scene is a function of.
    """
    random = np.random.Generator(np.random.PCG64(list(key)))
    image = _ground(random)
    owners = np.zeros((SIDE, SIDE), dtype=np.int64)  # number of the item on top, from 1
    chosen, whole = [], []
    for number in range(1, int(random.integers(1, MOST + 1)) + 1):
        item = int(random.integers(len(items)))
        side = int(random.integers(SMALLEST, LARGEST + 1))
        pixels = resized(items[item], side)
        if random.integers(2):
            pixels = pixels[:, ::-1]
        top, left = (int(place) for place in random.integers(-side // 4, SIDE - side + side // 4 + 1, 2))
        inside = _silhouette(pixels)
        rows, columns = (slice(max(start, 0), min(start + side, SIDE)) for start in (top, left))
        part = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
        shown = inside[part]
        image[rows, columns][shown] = 64 + pixels[part][shown] * 3 // 4
        owners[rows, columns][shown] = number
        chosen.append(item)
        whole.append(int(inside.sum()))
    image += random.integers(-12, 13, image.shape)
    return _described(np.clip(image, 0, 255).astype(np.uint8), owners, labels[chosen], whole)


def _described(
    image: Map, owners: NDArray[np.int64], classes: NDArray[np.integer], whole: list[int]
) -> Scene:
    numbers = range(1, len(whole) + 1)
    masks = np.stack([owners == number for number in numbers])
    kept = [VISIBLE * int(mask.sum()) >= area for mask, area in zip(masks, whole, strict=True)]
    found = np.zeros_like(image)
    for mask, label, seen in zip(masks, classes, kept, strict=True):
        found[mask] = label + 1 if seen else IGNORED
    masks, kept_classes = masks[kept], classes[kept].astype(np.int64)
    return Scene(image, found, masks, kept_classes, np.array([_box(mask) for mask in masks]).reshape(-1, 4))


def _box(mask: NDArray[np.bool_]) -> list[int]:
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def _ground(random: np.random.Generator) -> NDArray[np.int64]:
    """Brightness that changes slowly, and rectangles on it that are no items."""
    nodes = random.integers(0, 96, (SIDE // CELL + 1, SIDE // CELL + 1))
    place = np.arange(SIDE)
    cell, share = place // CELL, place % CELL
    rows = nodes[cell] * (CELL - share)[:, None] + nodes[cell + 1] * share[:, None]
    ground = (rows[:, cell] * (CELL - share) + rows[:, cell + 1] * share) // CELL**2
    for _ in range(int(random.integers(2, 6))):
        height, width = random.integers(3, 13, 2)
        top, left = random.integers(0, SIDE - 3, 2)
        ground[top : top + height, left : left + width] = random.integers(0, 200)
    return ground.astype(np.int64)


def _silhouette(pixels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Pixels between the first and the last bright one of their row and of their column."""
    bright = pixels >= 16
    rows, columns = (
        np.logical_or.accumulate(bright, axis)
        & np.flip(np.logical_or.accumulate(np.flip(bright, axis), axis), axis)
        for axis in (1, 0)
    )
    return rows & columns


def resized(item: Map, side: int) -> NDArray[np.int64]:
    """Resize a square image between its pixels' centres, linearly, in whole numbers."""
    length, scale = len(item), 2 * side
    place = np.clip((2 * np.arange(side) + 1) * length - side, 0, (length - 1) * scale)
    lower, share = place // scale, place % scale
    upper = np.minimum(lower + 1, length - 1)
    wide = item.astype(np.int64)
    rows = wide[lower] * (scale - share)[:, None] + wide[upper] * share[:, None]
    found = (rows[:, lower] * (scale - share) + rows[:, upper] * share) // scale**2
    return found.astype(np.int64)
