"""Batches of images in memory with their objects: for detection.

The masks of an image's objects are moved with the image, as further channels of it; boxes are those of the
masks afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import masks_to_boxes

from ablate.data.augmentation import Erasing, TensorAugmentation, crop_and_flip, draw_crops, erase
from ablate.data.contract import (
    Batching,
    DataInfo,
    InstanceBatch,
    Instances,
    Scale,
    Splits,
    Truth,
    TruthBatch,
)
from ablate.data.encoding import encoded
from ablate.data.scenes import Scene
from ablate.data.seeding import epoch_generator
from ablate.data.shard import Shard
from ablate.data.transfer import Normalisation, send

LARGEST_SEED = 2**62


class InstanceLoader:
    """A split that is evaluated: images one by one, and what they show."""

    def __init__(
        self, scenes: list[Scene], scale: Scale, *, batch_size: int, device: str, shard: Shard
    ) -> None:
        self.shard = shard
        self.samples, self.batch_size = len(scenes), batch_size
        self._images = torch.tensor(np.stack([one.image[None] for one in scenes]), device=device)
        self._truths = [_truth(one) for one in scenes]
        self._normalised = Normalisation(scale, device)

    def __len__(self) -> int:
        return math.ceil(self.samples / self.batch_size)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Any]:
        """Every image once, in the order of the data set; see `Loader.epoch`."""
        for number in self.shard.batches(len(self), first):
            batch = slice(number * self.batch_size, (number + 1) * self.batch_size)
            images = list(self._normalised(self._images[batch]))
            truths = self._truths[batch]
            yield TruthBatch(images, [truth.size for truth in truths], truths)


class TrainingInstanceLoader(InstanceLoader):
    """The training split: shuffled and augmented anew in each epoch, whole batches only."""

    def __init__(
        self, scenes: list[Scene], scale: Scale, *, batching: Batching, augmentation: TensorAugmentation
    ) -> None:
        super().__init__(
            scenes, scale, batch_size=batching.batch_size, device=batching.device, shard=batching.shard
        )
        self.samples = batching.training_batches(self.samples) * self.batch_size
        self._seed, self._augmentation = batching.seed, augmentation
        most = max(len(one.masks) for one in scenes)
        masks = np.zeros((len(scenes), most, *scenes[0].image.shape), np.uint8)
        for room, one in zip(masks, scenes, strict=True):
            room[: len(one.masks)] = one.masks
        channels = self._images.shape[1]
        self._images = torch.cat([self._images, torch.tensor(masks, device=batching.device)], 1)
        self._split = (channels, masks.shape[1])
        self._classes = [torch.tensor(one.classes, device=batching.device) for one in scenes]

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Any]:
        """A random choice of whole batches; see `Loader.epoch`."""
        generator = epoch_generator(self._seed, epoch)
        order = torch.randperm(len(self._images), generator=generator)[: self.samples].view(
            -1, self.batch_size
        )
        rows = self.shard.rows(self.batch_size)
        for number, batch in enumerate(send(order[:, rows], self._images.device)):
            seeds = torch.randint(LARGEST_SEED, (self.batch_size,), generator=generator)[rows]
            if number < first:  # nothing but the draws, so that those of the next batches stay the same
                draw_crops(self.batch_size, self._augmentation, generator)
                Erasing.draw(self.batch_size, self._augmentation.random_erasing, generator)
                continue
            moved = crop_and_flip(self._images[batch], self._augmentation, generator, self.shard)
            pixels, masks = moved.split(self._split, 1)
            images = erase(self._normalised(pixels), self._augmentation.random_erasing, generator, self.shard)
            chosen = order[number, rows].tolist()
            found = [_visible(one, self._classes[at]) for one, at in zip(masks, chosen, strict=True)]
            height, width = images.shape[-2:]
            yield InstanceBatch(images, [(height, width)] * len(images), found, seeds.tolist())


def _visible(masks: Tensor, classes: Tensor) -> Instances:
    """Keep the objects of which a crop left something."""
    masks = masks[: len(classes)]
    kept = masks.flatten(1).amax(1) > 0
    masks = masks[kept]
    boxes = masks_to_boxes(masks)  # the last two are those of the last pixels
    return Instances(boxes + boxes.new_tensor([0, 0, 1, 1]), classes[kept], masks)


def _truth(scene: Scene) -> Truth:
    boxes = scene.boxes.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    areas = scene.masks.sum((1, 2)).astype(np.float64)
    size = (scene.image.shape[0], scene.image.shape[1])
    crowd = np.zeros(len(areas), dtype=bool)
    return Truth(size, boxes, scene.classes, encoded(scene.masks), areas, crowd)


def instance_splits(
    info: DataInfo,
    scenes: tuple[list[Scene], list[Scene], list[Scene]],
    scale: Scale,
    augmentation: TensorAugmentation,
    batching: Batching,
) -> Splits:
    """The three splits of a set in memory, moved to the device.

    Raises:
        UserError: there are fewer training images than a batch holds.
    """
    train, *others = scenes
    validation, test = (
        InstanceLoader(
            split,
            scale,
            batch_size=batching.evaluation_batch_size,
            device=batching.device,
            shard=batching.shard,
        )
        for split in others
    )
    return Splits(
        train=TrainingInstanceLoader(train, scale, batching=batching, augmentation=augmentation),
        validation=validation,
        test=test,
        num_classes=info.things,
        image_shape=info.image_shape,
    )
