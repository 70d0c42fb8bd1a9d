"""Sets that fit into memory: arrays of images and labels, and what is common to such sets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ablate.data.augmentation_settings import read_augmentation
from ablate.data.contract import (
    Batching,
    DataInfo,
    Labelled,
    LabelledSplits,
    Picture,
    Scale,
    Splits,
    Storage,
)
from ablate.data.holdout import stratified_holdout
from ablate.errors import UserError

if TYPE_CHECKING:
    from ablate.data.augmentation import TensorAugmentation


def with_validation(train: Labelled, test: Labelled, *, per_class: int) -> LabelledSplits:
    """Hold `per_class` training images of each class out for validation; always the same ones."""
    kept, held = stratified_holdout(train.labels, per_class)
    return LabelledSplits(train=train.at(kept), validation=train.at(held), test=test)


@dataclass(frozen=True)
class InMemorySet(ABC):
    """A data set read whole into memory; a subclass says what it is and how it is read."""

    mean: ClassVar[tuple[float, ...]]  # of each channel of the original training set, pixels in [0, 1]
    std: ClassVar[tuple[float, ...]]

    @property
    @abstractmethod
    def info(self) -> DataInfo:
        """Classes and image shape, known without the data."""

    @abstractmethod
    def read(self, storage: Storage) -> LabelledSplits:
        """The images and labels of the three splits.

        Raises:
            UserError: the data are missing or corrupt.
        """

    def splits(self, augment: Mapping[str, Any], batching: Batching, storage: Storage) -> Splits:
        """The data on the device, in batches."""
        from ablate.data.tensor_loader import tensor_splits

        augmentation = self.augmentation(augment)
        scale = Scale(self.mean, self.std)
        return tensor_splits(self.info, self.read(storage), scale, augmentation, batching)

    def pictures(self, storage: Storage, positions: Sequence[int]) -> list[Picture]:
        """The test images at `positions`; needs no torch, unless `read` does.

        Raises:
            UserError: the data are missing, or labelled with maps.
        """
        test = self.read(storage).test
        if test.labels.ndim != 1:
            raise UserError("its images are labelled with maps", "images with one class each are shown")
        channels = 3 if test.images.shape[1] >= 3 else 1
        shown = test.images[np.asarray(positions, dtype=int), :channels].transpose(0, 2, 3, 1)
        labels = test.labels[np.asarray(positions, dtype=int)].tolist()
        return [
            Picture(image if channels == 3 else image[..., 0], label)
            for image, label in zip(shown, labels, strict=True)
        ]

    def augmentation(self, augment: Mapping[str, Any]) -> TensorAugmentation:
        """Read a recipe's augmentation of images in memory."""
        from ablate.data.augmentation import TensorAugmentation

        return read_augmentation(TensorAugmentation, augment)
