"""Geometry of an image with objects: flip, crop and size, drawn before the image is read.

It is a function of the image's size and seed alone. Several processes that share a batch thus know the size
of every image in it, and all of them fill up to the largest one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import NamedTuple, TypeVar

from ablate.data.options import require_between, require_whole
from ablate.errors import UserError

MULTIPLE = 32  # of which the sides of a batch are multiples; the stride of the coarsest feature map
Size = tuple[int, int]  # height, width
Pixels = TypeVar("Pixels")


@dataclass(frozen=True)
class InstanceAugmentation:
    """Augmentation of images with objects; everything is off by default."""

    horizontal_flip: float = 0.0  # probability
    short_sides: tuple[int, ...] = ()  # one of them at random; data.short_side if there are none
    crop: float = 0.0  # probability of a crop before the resize
    crop_short_sides: tuple[int, ...] = (400, 500, 600)  # one of them at random, of the image that is cropped
    crop_sides: tuple[int, ...] = (384, 600)  # shortest and longest height and width of the crop
    same_orientation: bool = False  # batches of landscape or of portrait images, which are filled up less

    def __post_init__(self) -> None:
        require_between("recipe.augment.horizontal_flip", self.horizontal_flip, 0, 1)
        require_between("recipe.augment.crop", self.crop, 0, 1)
        for name in ("short_sides", "crop_short_sides", "crop_sides"):
            for side in getattr(self, name):
                require_whole(f"recipe.augment.{name}", side, at_least=1)
        if not self.crop_short_sides or len(self.crop_sides) != 2 or self.crop_sides[0] > self.crop_sides[1]:
            raise UserError(
                f"recipe.augment has crop_short_sides={list(self.crop_short_sides)} and "
                f"crop_sides={list(self.crop_sides)}",
                "give one short side or more, and the shortest and the longest side of a crop",
            )


@dataclass(frozen=True)
class Resizing:
    """Sizes that images are resized to, as a data set sets them."""

    short_side: int  # of the resized image, unless its long side would be longer than
    long_side: int
    fixed: int | None = None  # height and width of every image instead; their ratio is not kept

    def __post_init__(self) -> None:
        for name in ("short_side", "long_side"):
            require_whole(f"data.{name}", getattr(self, name), at_least=1)
        if self.short_side > self.long_side:
            raise UserError(
                f"data.short_side={self.short_side} is above data.long_side={self.long_side}",
                "exchange them",
            )
        if self.fixed is not None:
            require_whole("data.size", self.fixed, at_least=1)
            if self.fixed % MULTIPLE:
                raise UserError(f"data.size={self.fixed} is not a multiple of {MULTIPLE}", "use one")

    @property
    def largest(self) -> Size:
        """Height and width of the largest landscape image, filled up."""
        return filled((self.fixed, self.fixed) if self.fixed else (self.short_side, self.long_side))

    def resized(self, size: Size, short_side: int | None = None) -> Size:
        """Size that an image is resized to, rounded as in mmdetection; one pixel at least."""
        if self.fixed:
            return self.fixed, self.fixed
        return scaled(size, short_side or self.short_side, self.long_side)


class Geometry(NamedTuple):
    """Changes of an image and its objects, in this order."""

    cropped: Size | None  # size to which it is resized before it is cropped
    crop: tuple[int, int, int, int] | None  # top, left, height, width
    size: Size  # to which it is resized
    flip: bool  # left to right


def scaled(size: Size, short_side: int, long_side: int) -> Size:
    """Return the size with this short side, or with this long side if it would be longer."""
    scale = min(long_side / max(size), short_side / min(size))
    height, width = (max(1, int(side * scale + 0.5)) for side in size)
    return height, width


def draw(size: Size, resizing: Resizing, augmentation: InstanceAugmentation, seed: int) -> Geometry:
    """Draw the geometry of a training image: ELSA's and DETR's policy where crops are enabled."""
    random = Random(seed)
    flip = random.random() < augmentation.horizontal_flip
    cropped = crop = None
    if random.random() < augmentation.crop:
        cropped = scaled(size, _one(random, augmentation.crop_short_sides), resizing.long_side)
        low, high = augmentation.crop_sides
        height, width = (_between(random, min(side, low), min(side, high)) for side in cropped)
        top, left = _between(random, 0, cropped[0] - height), _between(random, 0, cropped[1] - width)
        crop, size = (top, left, height, width), (height, width)
    short_side = _one(random, augmentation.short_sides) if augmentation.short_sides else None
    return Geometry(cropped, crop, resizing.resized(size, short_side), flip)


def plain(size: Size, resizing: Resizing) -> Geometry:
    """Return the geometry of evaluation: a resize."""
    return Geometry(None, None, resizing.resized(size), flip=False)


def moved(pixels: Pixels, geometry: Geometry) -> Pixels:
    """Apply a geometry to an image, boxes or masks, each a tv_tensor."""
    from torchvision.transforms.v2 import functional

    if geometry.cropped is not None and geometry.crop is not None:
        pixels = functional.crop(functional.resize(pixels, list(geometry.cropped)), *geometry.crop)
    pixels = functional.resize(pixels, list(geometry.size))
    return functional.horizontal_flip(pixels) if geometry.flip else pixels


def canvas(sizes: Iterable[Size]) -> Size:
    """Return the size to which all images of a batch are filled up."""
    heights, widths = zip(*sizes, strict=True)
    return filled((max(heights), max(widths)))


def filled(size: Size) -> Size:
    """Return the size, each side raised to a multiple of 32."""
    height, width = (-(-side // MULTIPLE) * MULTIPLE for side in size)
    return height, width


def _one(random: Random, sides: tuple[int, ...]) -> int:
    return sides[_between(random, 0, len(sides) - 1)]


def _between(random: Random, low: int, high: int) -> int:
    """Draw a whole number in [low, high]; `random()` alone is the same in all versions of Python."""
    return low + int(random.random() * (high - low + 1))
