"""Batches from image files and label maps.

Training follows mmsegmentation's recipe for ADE20K: resize, crop, flip, photometric distortion, padding. What
an image draws comes from the seed that it has in this epoch, so that batches depend neither on workers nor on
processes. Evaluation yields images and maps at the size of their files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from ablate.data.augmentation import MapAugmentation
from ablate.data.contract import (
    OUTSIDE,
    Batching,
    DataInfo,
    MapBatch,
    MapSamples,
    MapSplits,
    Splits,
)
from ablate.data.decoding import read_image
from ablate.data.image_loader import (
    IMAGENET,
    EpochSampler,
    ImageLoader,
    SeededPosition,
    TrainingImageLoader,
)
from ablate.data.map_files import Labels, check_pairs, read_map, require_one_size
from ablate.data.transfer import send
from ablate.errors import UserError

CROPS = 10  # tried until no class fills too much of one
AT_ONCE = 8  # images in an evaluation batch, each at the size of its file
MEAN_COLOUR = [round(255 * value) for value in IMAGENET.mean]  # 0 once normalised, but for rounding

Pair = tuple[Tensor, Tensor]  # image (3, H, W) uint8, map (H, W) int16


class Sides(NamedTuple):
    """Sizes in pixels: of a training crop, and the two sides that an image is resized to fit into."""

    crop: int
    short: int
    long: int

    def fitted(self, height: int, width: int, factor: float = 1.0) -> tuple[int, int]:
        """Return the largest size of the same shape that fits into `factor` × (short, long)."""
        short, long = int(factor * self.short), int(factor * self.long)
        ratio = min(long / max(height, width), short / min(height, width))
        return max(1, int(height * ratio + 0.5)), max(1, int(width * ratio + 0.5))


class MapTransform:
    """Training transform of an image and its label map, which stay one on the other."""

    def __init__(self, sides: Sides, augmentation: MapAugmentation) -> None:
        self._sides, self._augmentation = sides, augmentation

    def __call__(self, image: Tensor, labels: Tensor, seed: int) -> Pair:
        """Return an image (3, crop, crop) uint8 and its map (crop, crop) int16.

        Args:
            image: (3, H, W) uint8.
            labels: (H, W) int16.
            seed: of all that is drawn.
        """
        settings, generator = self._augmentation, torch.Generator().manual_seed(seed)
        factor = 1.0
        if settings.scale is not None:
            low, high = settings.scale
            factor = low + (high - low) * _uniform(generator)
        size = self._sides.fitted(labels.shape[0], labels.shape[1], factor)
        pixels: Any = tv_tensors.Image(resized(image, size))
        classes: Any = tv_tensors.Mask(resized_map(labels, size)[None])
        top, left, height, width = self._crop(classes[0], generator)
        pixels, classes = (functional.crop(one, top, left, height, width) for one in (pixels, classes))
        if settings.horizontal_flip and _uniform(generator) < settings.horizontal_flip:
            pixels, classes = (functional.horizontal_flip(one) for one in (pixels, classes))
        if settings.photometric:
            pixels = distorted(pixels, generator)
        border = [0, 0, self._sides.crop - width, self._sides.crop - height]  # left, top, right, bottom
        pixels = functional.pad(pixels, border, fill=MEAN_COLOUR)
        classes = functional.pad(classes, border, fill=OUTSIDE)
        return pixels.as_subclass(Tensor), classes.as_subclass(Tensor)[0]

    def _crop(self, classes: Tensor, generator: torch.Generator) -> tuple[int, int, int, int]:
        """Choose top, left, height and width of the crop."""
        settings, crop = self._augmentation, self._sides.crop
        height, width = classes.shape
        rows, columns = min(crop, height), min(crop, width)
        if not settings.random_crop:
            return (height - rows) // 2, (width - columns) // 2, rows, columns
        for _ in range(CROPS):
            top, left = (
                int(torch.randint(over + 1, (), generator=generator))
                for over in (height - rows, width - columns)
            )
            if settings.most_of_one_class == 1:
                break
            inside = classes[top : top + rows, left : left + columns]
            counts = torch.bincount(inside[inside != OUTSIDE].long())
            if (counts > 0).sum() > 1 and counts.max() < settings.most_of_one_class * counts.sum():
                break
        return top, left, rows, columns


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize pixels linearly and without a filter, as OpenCV does for mmsegmentation."""
    found: Tensor = functional.resize(
        image, list(size), interpolation=InterpolationMode.BILINEAR, antialias=False
    )
    return found


def resized_map(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a map (H, W) to the label at the centre of each new pixel."""
    found: Tensor = functional.resize(
        labels[None], list(size), interpolation=InterpolationMode.NEAREST_EXACT
    )[0]
    return found


def distorted(image: Tensor, generator: torch.Generator) -> Tensor:
    """mmsegmentation's photometric distortion; saturation is mixed with grey, where they scale HSV's S.

    Args:
        image: (3, H, W) uint8.
        generator: of what is drawn.
    """

    def chosen() -> bool:
        return _uniform(generator) < 0.5

    def between(low: float, high: float) -> float:
        return low + (high - low) * _uniform(generator)

    if chosen():
        image = (image.short() + round(between(-32, 32))).clamp(0, 255).to(torch.uint8)
    contrast_first = chosen()
    if contrast_first and chosen():
        image = functional.adjust_brightness(image, between(0.5, 1.5))  # torchvision's name for a factor
    if chosen():
        image = functional.adjust_saturation(image, between(0.5, 1.5))
    if chosen():
        image = functional.adjust_hue(image, between(-0.1, 0.1))
    if not contrast_first and chosen():
        image = functional.adjust_brightness(image, between(0.5, 1.5))
    return image


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


class MapFiles(Dataset[Pair | UserError]):
    """Image files with their label maps; transformed for training, as they are without a transform."""

    def __init__(self, samples: MapSamples, labels: Labels, transform: MapTransform | None = None) -> None:
        self._samples, self._labels, self._transform = samples, labels, transform

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, item: SeededPosition) -> Pair | UserError:
        """Return image and map, or the error of a file that cannot be read; see `ImageFiles`."""
        position, seed = item
        path, map_path = self._samples[position]
        try:
            pixels: NDArray[np.uint8] = np.array(read_image(path))  # (H, W, 3)
            classes = read_map(map_path, self._labels)
            require_one_size(path, map_path, classes)  # also of files that changed since they were checked
        except UserError as error:
            return error
        image, labels = torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), torch.from_numpy(classes)
        return (image, labels) if self._transform is None else self._transform(image, labels, seed)


def stacked(items: list[Pair | UserError]) -> Pair | UserError:
    """Make a training batch; the first error instead if there is one."""
    found = listed(items)
    return found if isinstance(found, UserError) else (torch.stack(found[0]), torch.stack(found[1]))


def listed(items: list[Pair | UserError]) -> tuple[list[Tensor], list[Tensor]] | UserError:
    """Return images and maps of different sizes; the first error instead if there is one."""
    pairs: list[Pair] = []
    for item in items:
        if isinstance(item, UserError):
            return item
        pairs.append(item)
    return [image for image, _ in pairs], [labels for _, labels in pairs]


class TrainingMapLoader(TrainingImageLoader):
    """The training split: shuffled and augmented anew in each epoch, whole batches only."""

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """A random choice of whole batches; see `Loader.epoch`."""
        for images, maps in super().epoch(epoch, first):
            yield images, maps.long()


class MapLoader(ImageLoader):
    """A split that is evaluated: images and maps at the size of their files, in order."""

    def __init__(self, files: MapFiles, sides: Sides, batching: Batching) -> None:
        sampler = EpochSampler.whole(len(files), min(AT_ONCE, batching.evaluation_batch_size), batching.shard)
        super().__init__(files, sampler, device=batching.device, workers=batching.workers, collate_fn=listed)
        self._sides, self._device = sides, torch.device(batching.device)
        self._mean, self._std = (
            255 * torch.tensor(values, device=self._device)[:, None, None] for values in IMAGENET
        )

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Any]:
        """Every image once, in the order of their paths; see `Loader.epoch`."""
        self._sampler.first = first
        for images, maps in self._read:
            yield MapBatch(
                [send(one, self._device).float().sub_(self._mean).div_(self._std) for one in images],
                [send(one, self._device).long() for one in maps],
                [self._sides.fitted(one.shape[0], one.shape[1]) for one in maps],
            )


def map_splits(
    info: DataInfo,
    samples: MapSplits,
    labels: Labels,
    sides: Sides,
    augmentation: MapAugmentation,
    batching: Batching,
) -> Splits:
    """The three splits of a folder of images and label maps.

    Every label map is read once beforehand, and every image that is evaluated.

    Raises:
        UserError: there are fewer training images than a batch holds, or something is wrong with a file.
    """
    own = slice(batching.shard.rank, None, batching.shard.world)
    check_pairs([*samples.validation, *samples.test][own], labels, batching.workers, decode_images=True)
    check_pairs(samples.train[own], labels, batching.workers, decode_images=False)
    return Splits(
        train=TrainingMapLoader(
            MapFiles(samples.train, labels, MapTransform(sides, augmentation)),
            batching=batching,
            random_erasing=0.0,
            collate_fn=stacked,
        ),
        validation=MapLoader(MapFiles(samples.validation, labels), sides, batching),
        test=MapLoader(MapFiles(samples.test, labels), sides, batching),
        num_classes=info.num_classes,
        image_shape=info.image_shape,
    )
