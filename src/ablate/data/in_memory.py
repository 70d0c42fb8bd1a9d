"""Sets that fit into memory: arrays of images and labels, and what is common to such sets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ablate.data.contract import Batching, DataInfo, Splits, Storage
from ablate.data.holdout import stratified_holdout
from ablate.data.options import parse

if TYPE_CHECKING:
    from ablate.data.augmentation import TensorAugmentation


class Labelled(NamedTuple):
    """Images and their classes."""

    images: NDArray[np.uint8]  # (N, C, H, W)
    labels: NDArray[np.integer]  # (N,)

    def at(self, positions: NDArray[np.integer]) -> Labelled:
        """The images and labels at `positions`."""
        return Labelled(self.images[positions], self.labels[positions])


class LabelledSplits(NamedTuple):
    """The three splits before they are cut into batches."""

    train: Labelled
    validation: Labelled
    test: Labelled


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
        return tensor_splits(self, self.read(storage), augmentation, batching)

    def augmentation(self, augment: Mapping[str, Any]) -> TensorAugmentation:
        """What a recipe's augmentation means for images in memory."""
        from ablate.data.augmentation import TensorAugmentation

        return parse(TensorAugmentation, augment, what="augmentation of images in memory:")
