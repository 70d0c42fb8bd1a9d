"""Augmentation: its settings, and the operations that work on whole batches."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ablate.data.options import require_between, require_whole
from ablate.data.shard import WHOLE, Shard
from ablate.data.transfer import send
from ablate.errors import UserError, unknown

Bounds = tuple[Tensor, Tensor]  # first place and the one after the last, (N,) int64 each

ERASED_AREA = 0.02, 1 / 3  # share of the image; Zhong et al., 2020, arXiv:1708.04896
ERASED_ASPECT = 0.3, 1 / 0.3  # height by width


@dataclass(frozen=True)
class TensorAugmentation:
    """Augmentation of sets held in memory; everything is off by default."""

    crop_padding: int = 0  # pixels of black on every side before a crop of the original size
    horizontal_flip: float = 0.0  # probability
    random_erasing: float = 0.0  # probability

    def __post_init__(self) -> None:
        require_whole("crop_padding", self.crop_padding, at_least=0)
        require_between("horizontal_flip", self.horizontal_flip, 0, 1)
        require_between("random_erasing", self.random_erasing, 0, 1)


@dataclass(frozen=True)
class FolderAugmentation:
    """Augmentation of folders of images, in timm's terms; everything is off by default."""

    scale: tuple[float, float] | None = None  # of a random resized crop, as share of the image's area
    interpolation: str = "bicubic"  # of that crop; evaluation is always bicubic
    horizontal_flip: float = 0.0  # probability
    color_jitter: float = 0.0  # strength; timm leaves it out where auto_augment is given
    auto_augment: str | None = None  # for instance rand-m9-mstd0.5-inc1
    random_erasing: float = 0.0  # probability

    def __post_init__(self) -> None:
        require_between("horizontal_flip", self.horizontal_flip, 0, 1)
        require_between("random_erasing", self.random_erasing, 0, 1)
        require_between("color_jitter", self.color_jitter, 0, 1)
        interpolations = ("bicubic", "bilinear", "lanczos", "nearest", "random")
        if self.interpolation not in interpolations:
            raise unknown("interpolation", str(self.interpolation), interpolations)
        if self.scale is not None:
            low_to_high = len(self.scale) == 2 and 0 < self.scale[0] <= self.scale[1] <= 1
            if not low_to_high:
                raise UserError(
                    f"scale is {list(self.scale)}",
                    "it must be two shares of the area in ascending order, in (0, 1]",
                )


@dataclass(frozen=True)
class MapAugmentation:
    """Augmentation of image files with label maps, in mmsegmentation's terms; all is off by default."""

    scale: tuple[float, float] | None = None  # factor of data.short_side and data.long_side
    random_crop: bool = False  # else the crop is from the centre
    most_of_one_class: float = 1.0  # of the labelled pixels of a crop; up to ten crops are tried
    horizontal_flip: float = 0.0  # probability
    photometric: bool = False  # brightness, contrast, saturation and hue, each with probability 0.5

    def __post_init__(self) -> None:
        require_between("horizontal_flip", self.horizontal_flip, 0, 1)
        require_between("most_of_one_class", self.most_of_one_class, 0.01, 1)
        if self.scale is not None and not (len(self.scale) == 2 and 0 < self.scale[0] <= self.scale[1]):
            raise UserError(
                f"scale is {list(self.scale)}", "it must be two positive factors in ascending order"
            )
        if self.most_of_one_class < 1 and not self.random_crop:
            raise UserError(
                f"most_of_one_class is {self.most_of_one_class:g}, and the crop is always from the centre",
                "use recipe.augment.random_crop=true, or recipe.augment.most_of_one_class=1",
            )


def crop_and_flip(
    images: Tensor, augmentation: TensorAugmentation, generator: torch.Generator, shard: Shard = WHOLE
) -> Tensor:
    """Move each image by up to `crop_padding` pixels and mirror it, at random.

    Args:
        images: (B, C, H, W), on any device.
        augmentation: what to do.
        generator: on the CPU, so that the same choices are made for every device.
        shard: which rows of a batch the images are; draws are those of the batch.
    """
    batch = len(images) * shard.world
    drawn = draw_crops(batch, augmentation, generator)
    if drawn is None:
        return images
    top, left, flip = send(drawn[:, shard.rows(batch)], images.device)
    return crop_at(images, top, left, flip.bool(), augmentation.crop_padding)


def draw_crops(images: int, augmentation: TensorAugmentation, generator: torch.Generator) -> Tensor | None:
    """Draw for so many images: (3, images) int64, first row, first column and whether to mirror.

    None, and nothing drawn, where images stay as they are.
    """
    padding, probability = augmentation.crop_padding, augmentation.horizontal_flip
    if padding == 0 and probability == 0:
        return None
    corner = torch.randint(0, 2 * padding + 1, (2, images), generator=generator)
    flip = torch.rand(images, generator=generator) < probability
    return torch.cat([corner, flip[None].long()])


def crop_at(images: Tensor, top: Tensor, left: Tensor, flip: Tensor, padding: int) -> Tensor:
    """Pad with zeros, cut windows of the original size, and mirror some of them.

    Args:
        images: (B, C, H, W).
        top: first row of each window in the padded image, (B,) int64 in [0, 2·padding].
        left: first column of the crop.
        flip: whether to mirror the window left to right, (B,) bool.
        padding: pixels on every side.
    """
    B, C, H, W = images.shape
    padded = F.pad(images, (padding,) * 4)
    columns = torch.arange(W, device=images.device)
    columns = torch.where(flip[:, None], columns.flip(0), columns) + left[:, None]  # (B, W)
    rows = torch.arange(H, device=images.device) + top[:, None]  # (B, H)
    # One gather over flat pixels: three times as fast as indexing with four tensors.
    pixels = (rows[:, :, None] * padded.shape[-1] + columns[:, None, :]).flatten(1)  # (B, H·W)
    return padded.flatten(2).gather(2, pixels[:, None].expand(-1, C, -1)).view(B, C, H, W)


def erase(images: Tensor, probability: float, generator: torch.Generator, shard: Shard = WHOLE) -> Tensor:
    """Random erasing: a rectangle of standard normal noise, in each image with this probability.

    As timm's `RandomErasing` in mode `pixel` with one rectangle, for a whole batch at once; a side
    that would not fit is shortened where timm draws again.

    Args:
        images: (B, C, H, W), normalised float, on any device; changed in place.
        probability: of erasing, for each image.
        generator: on the CPU.
        shard: which rows of a batch the images are; draws are those of the batch.
    """
    batch = len(images) * shard.world
    drawn = Erasing.draw(batch, probability, generator)
    if drawn is None:
        return images
    _, C, H, W = images.shape
    area, log_aspect, top, left = drawn.rectangle
    area = H * W * _between(*ERASED_AREA, area)
    aspect = _between(math.log(ERASED_ASPECT[0]), math.log(ERASED_ASPECT[1]), log_aspect).exp()
    rows = _interval((area * aspect).sqrt(), top, H)
    columns = _interval((area / aspect).sqrt(), left, W)

    place = torch.full((batch,), -1)  # of each image of the batch among those that are here
    place[shard.rows(batch)] = torch.arange(len(images))
    place = place[drawn.chosen]
    here = (place >= 0).nonzero()[:, 0]
    numbers = torch.stack([place, torch.arange(len(place)), *rows, *columns])[:, here]
    place, here, top, bottom, left, right = send(numbers, images.device)
    inside = _mask((top, bottom), (left, right), H, W)[:, None]  # (those here, 1, H, W)

    noise_generator = torch.Generator(images.device).manual_seed(
        drawn.seed
    )  # much noise: drawn where it is needed
    noise = torch.randn(len(drawn.chosen), C, H, W, generator=noise_generator, device=images.device)
    images[place] = torch.where(inside, noise[here], images[place])
    return images


@dataclass(frozen=True)
class Erasing:
    """Draws of `erase` for a batch: which images, four numbers in [0, 1) each, and the seed of the noise."""

    chosen: Tensor
    rectangle: Tensor  # (4, chosen): area, aspect, top, left
    seed: int

    @classmethod
    def draw(cls, images: int, probability: float, generator: torch.Generator) -> Erasing | None:
        """For so many images; None, and nothing drawn, where none is ever erased."""
        if probability == 0:
            return None
        chosen = (torch.rand(images, generator=generator) < probability).nonzero()[:, 0]
        rectangle = torch.rand(4, len(chosen), generator=generator)
        return cls(chosen, rectangle, int(torch.randint(2**62, (), generator=generator)))


def _between(low: float, high: float, position: Tensor) -> Tensor:
    return low + (high - low) * position


def _interval(length: Tensor, position: Tensor, size: int) -> Bounds:
    """Bounds of an interval among `size` places; `position` in [0, 1) says where it is.

    Rounding on the CPU gives every device the same ones.
    """
    length = length.round().clamp(1, max(1, size - 1))
    start = (position * (size - length + 1)).floor()
    return start.long(), (start + length).long()


def _mask(rows: Bounds, columns: Bounds, height: int, width: int) -> Tensor:
    """The pixels inside of rectangles, on their device: (N, H, W)."""

    def inside(bounds: Bounds, size: int) -> Tensor:
        first, end = bounds
        places = torch.arange(size, device=first.device)
        return (places >= first[:, None]) & (places < end[:, None])  # (N, size)

    return inside(rows, height)[:, :, None] & inside(columns, width)[:, None, :]
