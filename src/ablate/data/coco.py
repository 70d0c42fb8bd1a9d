"""COCO 2017, and any other data set in COCO's format: images with objects, for detection.

Where there are annotations of a test split, the validation split is used as it is. Else it serves as the test
split, and validation images are held out of the training split, so that nothing is ever chosen on the test
images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from ablate.data import verification
from ablate.data.augmentation_settings import read_augmentation
from ablate.data.contract import INSTANCES, Batching, DataInfo, Splits, Storage
from ablate.data.holdout import random_holdout
from ablate.data.options import require_whole
from ablate.data.origin import Origin
from ablate.errors import UserError

if TYPE_CHECKING:
    from ablate.data.coco_annotations import Annotations
    from ablate.data.coco_loader import Chosen
    from ablate.data.geometry import InstanceAugmentation, Resizing

NAMES = (  # in the order of their ids
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse"),
    *("sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie"),
    *("suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove"),
    *("skateboard", "surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon"),
    *("bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut"),
    *("cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse"),
    *("remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book"),
    *("clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)


class Part(NamedTuple):
    """One split on disk, relative to the data set's folder."""

    annotations: str
    images: str


@dataclass(frozen=True, kw_only=True)
class CocoSet(ABC):
    """A data set in COCO's format; a subclass says where it is."""

    short_side: int = 800  # of resized images, unless the long side would be longer than the next
    long_side: int = 1333
    size: int | None = None  # height and width of all images instead; the aspect ratio is not kept
    validation_images: int = 5000  # held out of the training split, if there is no test split
    empty_images: bool = False  # train on images without any annotation too
    verify: str = verification.FAST  # how image files are looked at when a run is submitted

    def __post_init__(self) -> None:
        verification.check_settings(self.verify)
        require_whole("data.validation_images", self.validation_images, at_least=1)
        _ = self.resizing

    @property
    @abstractmethod
    def parts(self) -> tuple[Part, ...]:
        """Training and validation split, and the test split if there is one."""

    @property
    @abstractmethod
    def info(self) -> DataInfo:
        """Classes and image shape, known without the data."""

    @property
    @abstractmethod
    def origin(self) -> Origin:
        """Places where the folder is looked for."""

    @property
    def resizing(self) -> Resizing:
        """Sizes that images are resized to.

        Raises:
            UserError: sizes that contradict one another.
        """
        from ablate.data.geometry import Resizing

        return Resizing(self.short_side, self.long_side, self.size)

    def augmentation(self, augment: Mapping[str, Any]) -> InstanceAugmentation:
        """Read a recipe's augmentation of images with objects.

        Raises:
            UserError: a setting is not valid, or has no effect with this data set's sizes.
        """
        from ablate.data.geometry import InstanceAugmentation

        augmentation = read_augmentation(InstanceAugmentation, augment)
        for name, off in (("short_sides", "[]"), ("same_orientation", "false")):
            if self.size is not None and getattr(augmentation, name):
                raise UserError(
                    f"recipe.augment.{name} has no effect with data.size={self.size}",
                    f"use recipe.augment.{name}={off}, or data.size=null",
                )
        if augmentation.short_sides and max(augmentation.short_sides) > self.long_side:
            raise UserError(
                f"recipe.augment.short_sides has {max(augmentation.short_sides)}, more than "
                f"data.long_side={self.long_side}",
                "use shorter sides, or a larger data.long_side",
            )
        return augmentation

    def read(self, storage: Storage) -> tuple[Chosen, Chosen, Chosen]:
        """Read and check all annotations; images are listed and not opened.

        Raises:
            UserError: data are missing, or names the file, the entry and what is wrong with it.
        """
        from ablate.data.coco_annotations import read_annotations, require_same_categories
        from ablate.data.coco_loader import Chosen

        root = self.origin.find(storage.data_root)
        if root is None:
            raise self.origin.missing(storage.data_root)
        files = [root / part.annotations for part in self.parts]
        found = [
            read_annotations(file, root / part.images) for file, part in zip(files, self.parts, strict=True)
        ]
        for file, one in zip(files, found, strict=True):
            self._check(file, one)
        require_same_categories(files, found)
        everything = [np.arange(len(one.paths)) for one in found]
        if len(found) == 3:
            train, validation, test = map(Chosen, found, everything)
        else:
            kept, held = random_holdout(len(found[0].paths), self.validation_images)
            train, validation = Chosen(found[0], kept), Chosen(found[0], held)
            test = Chosen(found[1], everything[1])
            if not len(found[0].annotated(held)):
                raise UserError(
                    f"the {len(held)} images held out for validation have no objects",
                    "use a larger data.validation_images",
                )
        if not self.empty_images:
            train = Chosen(train.annotations, train.annotations.annotated(train.images))
        return train, validation, test

    def verified(self, storage: Storage) -> None:
        """Look at the image files of all splits as `data.verify` says.

        Raises:
            UserError: images that cannot be read.
        """
        splits = self.read(storage)
        paths = [split.annotations.paths[image] for split in splits for image in split.images]
        verification.refuse_unreadable(paths, self.verify)

    def training_images(self, storage: Storage) -> int:
        """Number of training images, after the check of all annotations; see `read`."""
        return len(self.read(storage)[0].images)

    def splits(self, augment: Mapping[str, Any], batching: Batching, storage: Storage) -> Splits:
        """The data, read by worker processes, in batches."""
        from ablate.data.coco_loader import coco_splits

        augmentation = self.augmentation(augment)
        return coco_splits(self.info, self.read(storage), self.resizing, augmentation, batching)

    def _check(self, file: Path, found: Annotations) -> None:
        if len(found.categories) != self.info.things:
            raise UserError(
                f"{file} has {len(found.categories)} categories, expected {self.info.things}",
                "set data.num_classes to what is there, or correct the file",
            )
        if not found.learned.any():
            raise UserError(
                f"{file} has no objects with an area", "use the file with the annotations of the images"
            )

    def _info(self, classes: int, **facts: Any) -> DataInfo:
        height, width = self.resizing.largest
        return DataInfo(
            classes,
            (3, height, width),
            annotation=INSTANCES,
            things=classes,
            fixed_size=self.size is not None,
            **facts,
        )


@dataclass(frozen=True, kw_only=True)
class Coco(CocoSet):
    """COCO 2017: 118,287 training images less the hold-out; the 5,000 of val2017 are the test split."""

    ORIGIN: ClassVar[Origin] = Origin(
        title="COCO 2017",
        contents=(
            *("annotations/instances_train2017.json", "annotations/instances_val2017.json"),
            *("train2017", "val2017"),
        ),
        folders=("coco", ""),
        ways=(
            "get train2017.zip, val2017.zip and annotations_trainval2017.zip from https://cocodataset.org, "
            "unpack them in one folder coco, and point infra.data_root=DIR at the folder that holds it",
        ),
    )

    @property
    def parts(self) -> tuple[Part, ...]:
        """The official training and validation split."""
        years = ("train2017", "val2017")
        return tuple(Part(f"annotations/instances_{split}.json", split) for split in years)

    @property
    def info(self) -> DataInfo:
        """80 classes."""
        return self._info(len(NAMES), class_names=NAMES)

    @property
    def origin(self) -> Origin:
        """`coco/` under the data root, or the data root itself."""
        return self.ORIGIN


@dataclass(frozen=True, kw_only=True)
class CocoFormat(CocoSet):
    """A folder under the data root with files of annotations in COCO's format."""

    folder: str  # its name under the data root
    num_classes: int
    train_annotations: str = "annotations/instances_train.json"
    train_images: str = "train"
    val_annotations: str = "annotations/instances_val.json"
    val_images: str = "val"
    test_annotations: str | None = None
    test_images: str | None = None
    areas: tuple[int, ...] = (
        32**2,
        96**2,
    )  # pixels below which an object is small, from which on it is large

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("data.num_classes", self.num_classes, at_least=1)
        if len(self.areas) != 2 or not 0 < self.areas[0] <= self.areas[1]:
            raise UserError(
                f"data.areas is {list(self.areas)}", "give two numbers of pixels in ascending order"
            )
        if (self.test_annotations is None) != (self.test_images is None):
            raise UserError(
                f"data.test_annotations={self.test_annotations} and data.test_images={self.test_images}",
                "give both, or neither",
            )

    @property
    def parts(self) -> tuple[Part, ...]:
        """The configured splits."""
        test = (self.test_annotations, self.test_images)
        last = [] if test[0] is None or test[1] is None else [Part(test[0], test[1])]
        train = Part(self.train_annotations, self.train_images)
        return (train, Part(self.val_annotations, self.val_images), *last)

    @property
    def info(self) -> DataInfo:
        """Classes and areas as configured; `read` compares the classes with the files."""
        return self._info(self.num_classes, areas=(self.areas[0], self.areas[1]))

    @property
    def origin(self) -> Origin:
        """The folder of this name under the data root."""
        return Origin(
            title=f"data set {self.folder!r} in COCO's format",
            contents=tuple(dict.fromkeys(name for part in self.parts for name in part)),
            folders=(self.folder,),
            ways=(
                f"point infra.data_root=DIR at the folder that holds {self.folder}/",
                "correct data.folder, or the names of files and folders in it",
            ),
        )
