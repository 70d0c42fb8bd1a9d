"""Batches of images in files with their objects: decoded and moved in workers, normalised on the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from ablate.data.coco_annotations import Annotations
from ablate.data.contract import (
    Batching,
    DataInfo,
    InstanceBatch,
    Instances,
    Splits,
    Truth,
    TruthBatch,
)
from ablate.data.decoding import check_each, read_image
from ablate.data.geometry import (
    Geometry,
    InstanceAugmentation,
    Resizing,
    Size,
    canvas,
    draw,
    filled,
    moved,
    plain,
)
from ablate.data.image_loader import IMAGENET, EpochSampler, Readable, SeededPosition, read_in_workers
from ablate.data.seeding import epoch_generator
from ablate.data.shard import WHOLE
from ablate.data.transfer import Normalisation
from ablate.errors import UserError

AT_ONCE = 8  # images in an evaluation batch, of up to 13 MB each
Placed = tuple[int, int, Size]  # position of an image, its seed, size to which the batch is filled up


class Chosen(NamedTuple):
    """The images of one split."""

    annotations: Annotations
    images: NDArray[np.int64]  # positions among those of the file


class Learned(NamedTuple):
    """One training image, and its objects as they are in it."""

    image: Tensor  # (3, h, w) uint8
    objects: Instances
    seed: int
    canvas: Size


class LearnedBatch(NamedTuple):
    """Training images in few tensors, as a worker sends them."""

    images: Tensor  # (B, 3, H, W) uint8
    boxes: Tensor  # of all images, one after the other
    classes: Tensor
    masks: Tensor  # of all objects, flat
    counts: list[int]  # objects of each image
    sizes: list[Size]
    seeds: list[int]

    def pin_memory(self) -> LearnedBatch:
        """Pin the tensors alone; older versions of PyTorch would turn sizes into lists."""
        images, boxes, classes, masks = (part.pin_memory() for part in self[:4])
        return self._replace(images=images, boxes=boxes, classes=classes, masks=masks)


class Shown(NamedTuple):
    """One image that is evaluated."""

    image: Tensor  # (3, h, w) uint8
    truth: Truth

    def pin_memory(self) -> Shown:
        """Pin the image alone."""
        return self._replace(image=self.image.pin_memory())


class TrainingFiles(Dataset[Learned | UserError]):
    """Training images, each with a geometry that its seed determines."""

    def __init__(self, chosen: Chosen, resizing: Resizing, augmentation: InstanceAugmentation) -> None:
        self._annotations, self._images = chosen
        self._resizing, self._augmentation = resizing, augmentation
        self.same_orientation = augmentation.same_orientation

    def __len__(self) -> int:
        return len(self._images)

    def is_portrait(self, position: int) -> bool:
        """True if an image is higher than wide."""
        height, width = self._annotations.size(int(self._images[position]))
        return height > width

    def geometry(self, position: int, seed: int) -> Geometry:
        """Flip, crop and size of an image, which is not read."""
        size = self._annotations.size(int(self._images[position]))
        return draw(size, self._resizing, self._augmentation, seed)

    def __getitem__(self, item: Placed) -> Learned | UserError:
        """Return an image with its objects, or the error of a file that cannot be read."""
        position, seed, to_fill = item
        annotations, image = self._annotations, int(self._images[position])
        try:
            pixels = read_image(annotations.paths[image], size=annotations.size(image))
        except UserError as error:
            return error
        geometry = self.geometry(position, seed)
        objects = _moved_objects(annotations, image, geometry)
        return Learned(_moved_image(pixels, geometry), objects, seed, to_fill)


class EvaluationFiles(Dataset[Shown | UserError]):
    """Images that are evaluated, resized, and their objects in the file."""

    def __init__(self, chosen: Chosen, resizing: Resizing) -> None:
        self._annotations, self._images = chosen
        self._resizing = resizing

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, item: tuple[int, int]) -> Shown | UserError:
        """Return an image and what it shows, or the error of a file that cannot be read."""
        annotations, image = self._annotations, int(self._images[item[0]])
        size = annotations.size(image)
        try:
            pixels = read_image(annotations.paths[image], size=size)
        except UserError as error:
            return error
        return Shown(_moved_image(pixels, plain(size, self._resizing)), annotations.truth(image))

    def check(self, batching: Batching) -> None:
        """Decode this process's share of the images once, in as many threads as there are workers.

        Raises:
            UserError: the first that cannot be read or has another size than its annotations.
        """
        annotations, shard = self._annotations, batching.shard

        def decode(image: int) -> None:
            read_image(annotations.paths[image], reduced=True, size=annotations.size(image))

        check_each(decode, self._images[shard.rank :: shard.world].tolist(), batching.workers)


def _moved_image(image: Image.Image, geometry: Geometry) -> Tensor:
    """(3, h, w) uint8; resizes are bilinear and antialiased."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
    return moved(tv_tensors.Image(pixels), geometry).as_subclass(Tensor)


def _moved_objects(annotations: Annotations, image: int, geometry: Geometry) -> Instances:
    """Move the objects that are learned; one of which nothing is left, or less than a pixel, is left out."""
    from pycocotools import mask

    objects = annotations.to_learn(image)
    if not objects:
        height, width = geometry.size
        nothing = torch.zeros(0, dtype=torch.int64)
        return Instances(torch.zeros(0, 4), nothing, torch.zeros(0, height, width, dtype=torch.uint8))
    corners = torch.from_numpy(annotations.boxes[objects])
    corners[:, 2:] += corners[:, :2]
    size = annotations.size(image)
    placed = functional.clamp_bounding_boxes(
        tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=size)
    )
    boxes = functional.clamp_bounding_boxes(moved(placed, geometry)).as_subclass(Tensor).float()
    drawn = mask.decode(annotations.masks(image, objects))  # (height, width, n), one mask after the other
    masks = moved(tv_tensors.Mask(torch.from_numpy(drawn).permute(2, 0, 1)), geometry).as_subclass(Tensor)
    kept = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1) & masks.flatten(1).any(1).bool()
    classes = torch.from_numpy(annotations.classes[objects])
    return Instances(boxes[kept], classes[kept], masks[kept])


def collate_learned(items: list[Learned | UserError]) -> LearnedBatch | UserError:
    """Fill images up to one size; the first error instead if there is one."""
    found: list[Learned] = []
    for item in items:
        if isinstance(item, UserError):
            return item
        found.append(item)
    images = torch.zeros(len(found), 3, *found[0].canvas, dtype=torch.uint8)
    for room, one in zip(images, found, strict=True):
        height, width = one.image.shape[1:]
        room[:, :height, :width] = one.image
    return LearnedBatch(
        images,
        torch.cat([one.objects.boxes for one in found]),
        torch.cat([one.objects.classes for one in found]),
        torch.cat([one.objects.masks.flatten() for one in found]),
        [len(one.objects.classes) for one in found],
        [(one.image.shape[1], one.image.shape[2]) for one in found],
        [one.seed for one in found],
    )


def collate_shown(items: list[Shown | UserError]) -> list[Shown] | UserError:
    """Return the images of a batch as they are; the first error instead if there is one."""
    found: list[Shown] = []
    for item in items:
        if isinstance(item, UserError):
            return item
        found.append(item)
    return found


class FilledSampler(Sampler[list[Placed]]):
    """This process's share of training batches, and the size to which the whole batch is filled up."""

    def __init__(self, files: TrainingFiles, batching: Batching) -> None:
        batches = batching.training_batches(len(files))
        self._whole = EpochSampler(len(files), batching.batch_size, batches, WHOLE)
        self._files, self._rows = files, batching.shard.rows(batching.batch_size)
        self._first = 0

    def __len__(self) -> int:
        return len(self._whole)

    def begin(self, generator: torch.Generator, first: int) -> None:
        """Draw the next epoch from this generator, and yield it from batch `first` on."""
        self._whole.generator, self._first = generator, first

    def __iter__(self) -> Iterator[list[Placed]]:
        batches = list(self._whole)
        if self._files.same_orientation:
            generator = self._whole.generator
            assert generator is not None
            batches = of_one_orientation(batches, self._files.is_portrait, generator)
        for batch in batches[self._first :]:
            size = canvas(self._files.geometry(position, seed).size for position, seed in batch)
            yield [(*batch[row], size) for row in self._rows]


def of_one_orientation(
    batches: list[list[SeededPosition]], is_portrait: Callable[[int], bool], generator: torch.Generator
) -> list[list[SeededPosition]]:
    """Rearrange an epoch into batches of one orientation each; one of what is left over is mixed."""
    size, drawn = len(batches[0]), [one for batch in batches for one in batch]
    full: list[SeededPosition] = []
    rest: list[SeededPosition] = []
    for side in (False, True):
        group = [one for one in drawn if is_portrait(one[0]) == side]
        whole = len(group) // size * size
        full += group[:whole]
        rest += group[whole:]
    ordered = full + rest
    order = torch.randperm(len(batches), generator=generator).tolist()
    return [ordered[at * size : (at + 1) * size] for at in order]


class TrainingFileLoader:
    """The training split: shuffled and moved anew in each epoch, whole batches only."""

    def __init__(self, files: TrainingFiles, batching: Batching) -> None:
        self._seed = batching.seed
        self._sampler = FilledSampler(files, batching)
        self.samples = len(self._sampler) * batching.batch_size
        self._normalised = Normalisation(IMAGENET, batching.device)
        self._batches: Readable[LearnedBatch] = read_in_workers(
            files, self._sampler, collate_learned, device=batching.device, workers=batching.workers
        )

    def __len__(self) -> int:
        return len(self._sampler)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Any]:
        """A random choice of whole batches; see `Loader.epoch`."""
        self._sampler.begin(epoch_generator(self._seed, epoch), first)
        for batch in self._batches:
            yield self._prepared(batch)

    def _prepared(self, batch: LearnedBatch) -> InstanceBatch:
        device = self._normalised.device
        images = self._normalised(batch.images)
        boxes, classes, flat = (
            part.to(device, non_blocking=True) for part in (batch.boxes, batch.classes, batch.masks)
        )
        to_fill = (images.shape[-2], images.shape[-1])
        pixels = [
            count * height * width for count, (height, width) in zip(batch.counts, batch.sizes, strict=True)
        ]
        instances = []
        for image, size, *parts in zip(
            images,
            batch.sizes,
            boxes.split(batch.counts),
            classes.split(batch.counts),
            flat.split(pixels),
            strict=True,
        ):
            height, width = size
            image[:, height:] = 0
            image[:, :, width:] = 0
            masks = _filled_up(parts[2].view(-1, height, width), to_fill)
            instances.append(Instances(parts[0], parts[1], masks))
        return InstanceBatch(images, batch.sizes, instances, batch.seeds)


class EvaluationFileLoader:
    """A split that is evaluated: images one by one, and what they show."""

    def __init__(self, files: EvaluationFiles, batching: Batching) -> None:
        self.samples = len(files)
        size = min(AT_ONCE, batching.evaluation_batch_size)
        self._sampler = EpochSampler(len(files), size, math.ceil(len(files) / size), batching.shard)
        self._normalised = Normalisation(IMAGENET, batching.device)
        self._batches: Readable[list[Shown]] = read_in_workers(
            files, self._sampler, collate_shown, device=batching.device, workers=batching.workers
        )

    def __len__(self) -> int:
        return len(self._sampler)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Any]:
        """Every image once, in the order of their ids; see `Loader.epoch`."""
        self._sampler.first = first
        for batch in self._batches:
            sizes = [(one.image.shape[1], one.image.shape[2]) for one in batch]
            images = [
                _filled_up(self._normalised(one.image), filled(size))
                for one, size in zip(batch, sizes, strict=True)
            ]
            yield TruthBatch(images, sizes, [one.truth for one in batch])


def _filled_up(pixels: Tensor, size: Size) -> Tensor:
    """Add zeros at the right and at the bottom."""
    height, width = pixels.shape[-2:]
    return F.pad(pixels, (0, size[1] - width, 0, size[0] - height))


def coco_splits(
    info: DataInfo,
    chosen: tuple[Chosen, Chosen, Chosen],
    resizing: Resizing,
    augmentation: InstanceAugmentation,
    batching: Batching,
) -> Splits:
    """The three splits of a set in COCO's format.

    Raises:
        UserError: there are fewer training images than a batch holds, or an image of the other splits cannot
            be read.
    """
    train = TrainingFileLoader(TrainingFiles(chosen[0], resizing, augmentation), batching)
    validation, test = (EvaluationFiles(one, resizing) for one in chosen[1:])
    for files in (validation, test):
        files.check(batching)
    return Splits(
        train=train,
        validation=EvaluationFileLoader(validation, batching),
        test=EvaluationFileLoader(test, batching),
        num_classes=info.num_classes,
        image_shape=info.image_shape,
    )
