"""Contracts of data sets: the types that loaders, data sets and training share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ablate.data.options import require_whole
from ablate.data.shard import WHOLE, Shard
from ablate.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


CLASS, MAP, INSTANCES = "class", "map", "instances"  # annotations
OUTSIDE = -1  # label of pixels that belong to no class

Samples = list[tuple[str, int]]  # path of the image file, class
MapSamples = list[tuple[str, str]]  # path of the image file, path of its label map


class SampleSplits(NamedTuple):
    """The image files of the three splits."""

    train: Samples
    validation: Samples
    test: Samples


class MapSplits(NamedTuple):
    """The image files and label maps of the three splits."""

    train: MapSamples
    validation: MapSamples
    test: MapSamples


class MapBatch(NamedTuple):
    """Images of different sizes that are evaluated one by one, and their maps at the size of the files."""

    images: list[Tensor]  # (C, H, W) float32 each, normalised, at the size of the file
    maps: list[Tensor]  # (H, W) int64 each, `OUTSIDE` where a pixel belongs to no class
    sizes: list[tuple[int, int]]  # (height, width) to which an image is resized for the network


class Instances(NamedTuple):
    """The objects of one training image."""

    boxes: Tensor  # (n, 4) float32: left, top, right, bottom in pixels, the last two beyond the object
    classes: Tensor  # (n,) int64
    masks: Tensor  # (n, H, W) uint8, 1 inside, of the image as it is in the batch


class InstanceBatch(NamedTuple):
    """Training images of one size and their objects."""

    images: Tensor  # (B, C, H, W) float32, normalised; filled up with 0 at the right and at the bottom
    sizes: list[tuple[int, int]]  # (height, width) of each image without what fills it up
    instances: list[Instances]
    seeds: list[int]  # of what a task draws for each image


class Truth(NamedTuple):
    """Objects of an image that is evaluated, in COCO's terms, at the size of the image's file.

    Attributes:
        size: (height, width).
        boxes: (n, 4) float64: left, top, width, height.
        classes: (n,).
        masks: each in COCO's run-length encoding: `size` and `counts`.
        areas: (n,) float64, pixels; they say which range of sizes an object is in.
        crowd: (n,) bool: several objects in one, where a detection is neither right nor wrong.
    """

    size: tuple[int, int]
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    masks: list[dict[str, Any]]
    areas: NDArray[np.float64]
    crowd: NDArray[Any]


class TruthBatch(NamedTuple):
    """Images that are evaluated, each on its own, and what they show."""

    images: list[Tensor]  # (C, H, W) float32 each, normalised; filled up as in `InstanceBatch`
    sizes: list[tuple[int, int]]  # (height, width) of each image without what fills it up
    truths: list[Truth]


class Labelled(NamedTuple):
    """Images and their classes."""

    images: NDArray[np.uint8]  # (N, C, H, W)
    labels: NDArray[np.integer]  # (N,); of maps (N, H, W) uint8, 255 where a pixel belongs to no class

    def at(self, positions: NDArray[np.integer]) -> Labelled:
        """The images and labels at `positions`."""
        return Labelled(self.images[positions], self.labels[positions])


class LabelledSplits(NamedTuple):
    """The three splits before they are cut into batches."""

    train: Labelled
    validation: Labelled
    test: Labelled


class Picture(NamedTuple):
    """A test image to look at, and its class."""

    image: NDArray[np.uint8]  # (H, W) or (H, W, 3)
    label: int


class Scale(NamedTuple):
    """Mean and standard deviation of each channel of the training set, pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class DataInfo:
    """Facts about a data set that need no data on disk.

    Attributes:
        num_classes: two or more; one or more of a set with instances alone.
        image_shape: (channels, height, width); the largest one where sizes vary.
        train_images: size of the training split; None if only the data tell.
        annotation: what an image is labelled with: a class, a map with a class for each pixel, or instances.
        things: classes of instances, 0 if there are none. A map has the ground as one more class.
        areas: pixels below which an object is small, and from which on it is large.
        class_names: of the classes of instances if there are any, else of the classes; may be empty.
        fixed_size: all images have the shape `image_shape`; else they differ in size at least in evaluation,
            see `MapBatch` and `TruthBatch`.
    """

    num_classes: int
    image_shape: tuple[int, int, int]
    train_images: int | None = None
    annotation: str = CLASS
    things: int = 0
    areas: tuple[int, int] = (32**2, 96**2)
    class_names: tuple[str, ...] = ()
    fixed_size: bool = True

    @property
    def annotations(self) -> tuple[str, ...]:
        """Annotations that batches can have."""
        both = (self.annotation, INSTANCES) if self.things else (self.annotation,)
        return tuple(dict.fromkeys(both))

    def names(self, annotation: str) -> tuple[str, ...]:
        """Names of the classes of an annotation; none if they are not known."""
        ground = annotation == MAP and bool(self.things)
        return ("ground", *self.class_names) if ground and self.class_names else self.class_names


class Loader(Protocol):
    """One split in batches; epochs can be requested in any order and any number of times.

    Of several processes that compute a run together each gets its share, see `Shard`; numbers of images
    and batches are those of the whole.
    """

    @property
    def samples(self) -> int:
        """Images that one epoch yields."""
        ...

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Any]:
        """Images (B, C, H, W) float32, normalised, and labels (B,) int64 of one epoch, from batch `first` on.

        The labels of maps are (B, H, W) int64, `OUTSIDE` where a pixel belongs to no class. With instances,
        an `InstanceBatch` in training and a `TruthBatch` in evaluation. Image files with maps are evaluated
        in a `MapBatch`.

        Order and augmentation are a function of the seed and `epoch` alone; an epoch that resumes in the
        middle draws what it would have drawn.
        """
        ...

    def __len__(self) -> int:
        """Batches in one epoch."""
        ...


@dataclass(frozen=True)
class Splits:
    """The three splits of a data set. Nothing is ever chosen on `test`."""

    train: Loader
    validation: Loader
    test: Loader
    num_classes: int
    image_shape: tuple[int, int, int]  # (channels, height, width)


@dataclass(frozen=True)
class Batching:
    """Batching of the splits, and the device on which batches arrive."""

    seed: int
    batch_size: int
    evaluation_batch_size: int
    device: str
    workers: int
    shard: Shard = WHOLE
    annotation: str = CLASS  # one of the data set's

    def __post_init__(self) -> None:
        require_whole("seed", self.seed, at_least=0)
        require_whole("batch_size", self.batch_size, at_least=1)
        require_whole("evaluation_batch_size", self.evaluation_batch_size, at_least=1)
        require_whole("workers", self.workers, at_least=0)

    def training_batches(self, images: int) -> int:
        """Whole batches in `images` training images; what is left over is dropped.

        Raises:
            UserError: there is not one whole batch.
        """
        require_a_batch(self.batch_size, images)
        if self.batch_size % self.shard.world:
            raise UserError(
                f"{self.shard.world} processes cannot share {self.batch_size} images equally",
                f"use a batch size that is a multiple of {self.shard.world}",
            )
        return images // self.batch_size


def require_a_batch(batch_size: int, images: int) -> None:
    """Refuse a batch that is larger than the training split.

    Raises:
        UserError: with both numbers.
    """
    if images < batch_size:
        raise UserError(
            f"recipe.batch_size={batch_size} is more than the {images} training images",
            f"lower it to {images} or less",
        )


@dataclass(frozen=True)
class Storage:
    """Location of the data on this machine, and permission to download; not part of a run's identity."""

    data_root: Path
    download: bool = False


class DataSet(Protocol):
    """One entry of the catalogue: a frozen dataclass whose fields are the keys of its configuration."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def info(self) -> DataInfo:
        """Classes and image shape, known without the data."""
        ...

    def augmentation(self, augment: Mapping[str, Any]) -> object:
        """A recipe's augmentation, read and checked for this kind of set."""
        ...

    def splits(self, augment: Mapping[str, Any], batching: Batching, storage: Storage) -> Splits:
        """The data, read and cut into batches."""
        ...
