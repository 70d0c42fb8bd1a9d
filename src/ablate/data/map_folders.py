"""ADE20K and any other folder of images and label maps.

As with ImageNet, the official validation images are the test set, and validation images are held out of the
training images. A folder with a test set of its own needs no hold-out.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ablate.data import verification
from ablate.data.augmentation_settings import read_augmentation
from ablate.data.contract import MAP, Batching, DataInfo, MapSamples, MapSplits, Splits, Storage
from ablate.data.holdout import random_holdout
from ablate.data.options import require_whole
from ablate.data.origin import Origin
from ablate.errors import UserError

if TYPE_CHECKING:
    from ablate.data.augmentation import MapAugmentation
    from ablate.data.map_files import Labels

MOST_LABELS = 2**15  # that maps hold while they are read


@dataclass(frozen=True, kw_only=True)
class MapSet(ABC):
    """A folder of images and a folder of label maps; a subclass says where they are and what labels mean."""

    size: int = 512  # height and width of a training crop
    short_side: int = 512  # images are resized to fit into short_side × long_side, which keeps their shape
    long_side: int = 2048
    validation_images: int = 500  # held out of the training images, always the same ones
    verify: str = verification.FAST  # how files are looked at when a run is submitted

    TRAIN: ClassVar[str] = "train"
    VALIDATION: ClassVar[str] = "val"
    MAPS: ClassVar[str] = "labels"

    def __post_init__(self) -> None:
        verification.check_settings(self.verify)
        for name in ("size", "short_side", "validation_images"):
            require_whole(f"data.{name}", getattr(self, name), at_least=1)
        require_whole("data.long_side", self.long_side, at_least=self.short_side)

    @property
    @abstractmethod
    def labels(self) -> Labels:
        """Meaning of the values in the label maps."""

    @property
    @abstractmethod
    def origin(self) -> Origin:
        """Places where the folder is looked for."""

    @property
    def info(self) -> DataInfo:
        """Classes, and the shape of a training crop."""
        return DataInfo(self.labels.num_classes, (3, self.size, self.size), annotation=MAP, fixed_size=False)

    def read(self, storage: Storage) -> MapSplits:
        """The image files of the three splits and their label maps, without opening them.

        Raises:
            UserError: the folder is missing, or images and maps do not match.
        """
        root = self.origin.find(storage.data_root)
        if root is None:
            raise self.origin.missing(storage.data_root)
        train, val = self._pairs(root, self.TRAIN), self._pairs(root, self.VALIDATION)
        if self._has_test(root):
            return MapSplits(train, validation=val, test=self._pairs(root, "test"))
        kept, held = random_holdout(len(train), self.validation_images)
        return MapSplits([train[i] for i in kept], [train[i] for i in held], test=val)

    def verified(self, storage: Storage) -> None:
        """Look at the image files of all splits, and with `data.verify=full` at every label, too.

        Raises:
            UserError: images or label maps that cannot be used.
        """
        from ablate.data.map_files import check_pairs

        pairs = [pair for split in self.read(storage) for pair in split]
        verification.refuse_unreadable([path for path, _ in pairs], self.verify)
        if self.verify == verification.FULL:
            check_pairs(pairs, self.labels, os.cpu_count() or 1, decode_images=False)

    def training_images(self, storage: Storage) -> int:
        """Number of training images, after every image was paired with its label map; see `read`."""
        return len(self.read(storage).train)

    def splits(self, augment: Mapping[str, Any], batching: Batching, storage: Storage) -> Splits:
        """The data, read by worker processes, in batches."""
        from ablate.data.map_loader import Sides, map_splits

        sides = Sides(self.size, self.short_side, self.long_side)
        augmentation = self.augmentation(augment)
        return map_splits(self.info, self.read(storage), self.labels, sides, augmentation, batching)

    def augmentation(self, augment: Mapping[str, Any]) -> MapAugmentation:
        """Read a recipe's augmentation of images with label maps."""
        from ablate.data.augmentation import MapAugmentation

        return read_augmentation(MapAugmentation, augment)

    def _has_test(self, root: Path) -> bool:
        return (root / "images" / "test").is_dir()

    def _pairs(self, root: Path, split: str) -> MapSamples:
        from ablate.data.map_files import pair

        try:
            return pair(root / "images" / split, root / self.MAPS / split)
        except OSError as error:
            raise self.origin.corrupt(root, error) from error


@dataclass(frozen=True, kw_only=True)
class MapFolder(MapSet):
    """A folder under the data root with `images/` and `labels/`, and the splits in each of them."""

    folder: str  # its name under the data root
    num_classes: int
    offset: int = 0  # label of the first class; smaller ones are no class
    ignored: int | None = 255  # a label that is no class

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_classes == 1:
            raise UserError(
                "data.num_classes is 1, and with one class there is nothing to tell apart",
                "count the background as a class: data.num_classes=2",
            )
        require_whole("data.num_classes", self.num_classes, at_least=2)
        require_whole("data.offset", self.offset, at_least=0)
        if max(self.num_classes, self.offset + self.num_classes - 1, self.ignored or 0) >= MOST_LABELS:
            raise UserError(
                f"data.num_classes={self.num_classes}, data.offset={self.offset}, "
                f"data.ignored={self.ignored}: a label is too large",
                f"use labels below {MOST_LABELS}",
            )
        if self.ignored is not None:
            require_whole("data.ignored", self.ignored, at_least=0)
            if self.offset <= self.ignored < self.offset + self.num_classes:
                raise UserError(
                    f"data.ignored={self.ignored} is also the label of a class: {self.num_classes} classes "
                    f"are the labels {self.offset} to {self.offset + self.num_classes - 1}",
                    "use data.ignored=null, or correct data.num_classes",
                )

    @property
    def labels(self) -> Labels:
        """Meaning of the values, as configured."""
        from ablate.data.map_files import Labels

        return Labels(self.num_classes, self.offset, self.ignored)

    @property
    def origin(self) -> Origin:
        """The folder of this name under the data root."""
        return Origin(
            title=f"map folder {self.folder!r}",
            contents=("images/train", "images/val", "labels/train", "labels/val"),
            folders=(self.folder,),
            ways=(
                f"point infra.data_root=DIR at the folder that holds {self.folder}/",
                "correct data.folder",
            ),
        )


@dataclass(frozen=True, kw_only=True)
class ADE20K(MapSet):
    """ADE20K's 150 classes (SceneParsing): 20,210 training images less the hold-out, 2,000 for test."""

    TRAIN: ClassVar[str] = "training"
    VALIDATION: ClassVar[str] = "validation"
    MAPS: ClassVar[str] = "annotations"
    ORIGIN: ClassVar[Origin] = Origin(
        title="ADE20K",
        contents=("images/training", "images/validation", "annotations/training", "annotations/validation"),
        folders=("ADEChallengeData2016", "ade20k/ADEChallengeData2016", "ade20k", ""),
        ways=(
            "get ADEChallengeData2016.zip from http://sceneparsing.csail.mit.edu, unpack it, "
            "and point infra.data_root=DIR at the folder that holds ADEChallengeData2016/",
        ),
    )

    @property
    def labels(self) -> Labels:
        """Label 0, `other`, is no class; label 1 is class 0."""
        from ablate.data.map_files import Labels

        return Labels(150, offset=1)

    @property
    def origin(self) -> Origin:
        """`ADEChallengeData2016/` under the data root, or the data root itself."""
        return self.ORIGIN

    def _has_test(self, root: Path) -> bool:
        return False  # the official test/ has no maps
