"""Batches from images that are held in memory as bytes, on the device where they are used."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablate.data.augmentation import Erasing, TensorAugmentation, crop_and_flip, draw_crops, erase
from ablate.data.contract import Batching, DataInfo, Labelled, LabelledSplits, Scale, Splits
from ablate.data.seeding import epoch_generator
from ablate.data.shard import Shard
from ablate.data.transfer import Normalisation, send


class TensorLoader:
    """A split on the device; in order and whole for evaluation, shuffled and augmented for training."""

    def __init__(
        self,
        data: Labelled,
        scale: Scale,
        *,
        batch_size: int,
        device: str,
        shard: Shard,
    ) -> None:
        self.shard = shard
        self.samples = len(data.labels)
        self.batch_size = batch_size
        self._maps = data.labels.ndim == 3
        self._images = torch.tensor(data.images, device=device)  # (N, C, H, W) uint8
        if self._maps:  # one more channel, one up: what is cropped in from outside is 0 there, no class
            above = torch.tensor(data.labels + np.uint8(1), device=device)  # 255 becomes 0
            self._images = torch.cat([self._images, above[:, None]], 1)
        else:
            self._labels = torch.tensor(data.labels, dtype=torch.int64, device=device)
        self._normalised = Normalisation(scale, device)

    def __len__(self) -> int:
        return math.ceil(self.samples / self.batch_size)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once, in the order of the data set; see `Loader.epoch`."""
        for number in self.shard.batches(len(self), first):
            batch = slice(number * self.batch_size, (number + 1) * self.batch_size)
            yield self._labelled(self._images[batch], batch)

    def _labelled(self, images: Tensor, batch: Any) -> tuple[Tensor, Tensor]:
        """Normalised images of a batch and their labels."""
        if self._maps:
            return self._normalised(images[:, :-1]), images[:, -1].long() - 1
        return self._normalised(images), self._labels[batch]


class TrainingTensorLoader(TensorLoader):
    """The training split: shuffled and augmented anew in each epoch, whole batches only."""

    def __init__(
        self,
        data: Labelled,
        scale: Scale,
        *,
        batching: Batching,
        augmentation: TensorAugmentation,
    ) -> None:
        super().__init__(
            data, scale, batch_size=batching.batch_size, device=batching.device, shard=batching.shard
        )
        self.samples = batching.training_batches(self.samples) * self.batch_size
        self._seed = batching.seed
        self._augmentation = augmentation

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """A random choice of whole batches; see `Loader.epoch`."""
        generator = epoch_generator(self._seed, epoch)
        order = torch.randperm(len(self._images), generator=generator)[: self.samples]
        mine = order.view(-1, self.batch_size)[:, self.shard.rows(self.batch_size)]
        for number, batch in enumerate(send(mine, self._images.device)):
            if number < first:  # nothing but the draws, so that those of the next batches stay the same
                draw_crops(self.batch_size, self._augmentation, generator)
                Erasing.draw(self.batch_size, self._augmentation.random_erasing, generator)
                continue
            images = crop_and_flip(self._images[batch], self._augmentation, generator, self.shard)
            images, labels = self._labelled(images, batch)
            yield erase(images, self._augmentation.random_erasing, generator, self.shard), labels


def tensor_splits(
    info: DataInfo,
    data: LabelledSplits,
    scale: Scale,
    augmentation: TensorAugmentation,
    batching: Batching,
) -> Splits:
    """The three splits of a set in memory, moved to the device.

    Raises:
        UserError: there are fewer training images than a batch holds.
    """

    def evaluation(split: Labelled) -> TensorLoader:
        return TensorLoader(
            split,
            scale,
            batch_size=batching.evaluation_batch_size,
            device=batching.device,
            shard=batching.shard,
        )

    return Splits(
        train=TrainingTensorLoader(data.train, scale, batching=batching, augmentation=augmentation),
        validation=evaluation(data.validation),
        test=evaluation(data.test),
        num_classes=info.num_classes,
        image_shape=info.image_shape,
    )
