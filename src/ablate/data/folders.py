"""ImageNet and any other folder of image files, one subfolder a class.

Validation is held out of `train/`, so that the official validation images in `val/` serve as the
test set and nothing is ever chosen on them. A folder with a `test/` of its own needs no hold-out.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ablate.data import verification
from ablate.data.augmentation_settings import read_augmentation
from ablate.data.contract import Batching, DataInfo, Picture, Samples, SampleSplits, Splits, Storage
from ablate.data.decoding import read_image
from ablate.data.holdout import stratified_holdout
from ablate.data.listing import class_folders, list_images
from ablate.data.options import require_between, require_whole
from ablate.data.origin import Origin
from ablate.errors import UserError

if TYPE_CHECKING:
    from ablate.data.augmentation import FolderAugmentation

PICTURE = 112  # pixels, of the longer side of a test image that is shown


@dataclass(frozen=True, kw_only=True)
class FolderSet(ABC):
    """A folder with `train/` and `val/`; a subclass says where it is."""

    size: int = 224  # height and width of what the network sees
    validation_per_class: int = 10  # images held out of train/ for validation
    crop_pct: float = 0.875  # share of the resized image that evaluation cuts from its centre
    verify: str = verification.FAST  # how image files are looked at when a run is submitted
    corrupt: str = verification.REFUSE  # what to do about images that cannot be read

    def __post_init__(self) -> None:
        verification.check_settings(self.verify, self.corrupt)
        require_whole("data.size", self.size, at_least=1)
        require_whole("data.validation_per_class", self.validation_per_class, at_least=1)
        require_between("data.crop_pct", self.crop_pct, 0.01, 1)

    @property
    @abstractmethod
    def info(self) -> DataInfo:
        """Classes and image shape, known without the data."""

    @property
    @abstractmethod
    def origin(self) -> Origin:
        """Places where the folder is looked for."""

    def read(self, storage: Storage) -> SampleSplits:
        """The image files of the three splits, without opening them.

        Raises:
            UserError: the folder is missing, or its classes are not those expected.
        """
        root = self.origin.find(storage.data_root)
        if root is None:
            raise self.origin.missing(storage.data_root)
        train, val = self._samples(root, "train"), self._samples(root, "val")
        test = self._samples(root, "test") if self._has_test(root) else []
        if self.corrupt == verification.SKIP:
            train, val, test = _readable(train, val, test)
        if test:
            return SampleSplits(train=train, validation=val, test=test)
        labels = np.array([label for _, label in train])
        kept, held = stratified_holdout(labels, self.validation_per_class)
        return SampleSplits([train[i] for i in kept], [train[i] for i in held], test=val)

    def verified(self, storage: Storage) -> None:
        """Look at the image files of all splits as `data.verify` says.

        Raises:
            UserError: the folder is not as expected, or images cannot be read and are not to be skipped.
        """
        splits = self.read(storage)
        if self.corrupt == verification.REFUSE:
            verification.refuse_unreadable([path for split in splits for path, _ in split], self.verify)

    def test_samples(self, data_root: Path) -> Samples:
        """The image files of the test split alone: `test/` if there is one, else `val/`.

        Raises:
            UserError: the folder is missing, or its classes are not as many as expected.
        """
        for place in (*self.origin.places(data_root), data_root):
            if (place / "val").is_dir():
                split = "test" if self._has_test(place) else "val"
                samples = self._read_split(place / split)
                return _readable(samples)[0] if self.corrupt == verification.SKIP else samples
        raise self.origin.missing(data_root)

    def splits(self, augment: Mapping[str, Any], batching: Batching, storage: Storage) -> Splits:
        """The data, read by worker processes, in batches."""
        from ablate.data.image_loader import image_splits

        augmentation = self.augmentation(augment)
        return image_splits(self.info, self.read(storage), augmentation, batching, self.crop_pct)

    def pictures(self, storage: Storage, positions: Sequence[int]) -> list[Picture]:
        """The test images at `positions` whole, at most PICTURE pixels high and wide; needs no torch.

        Raises:
            UserError: the folder is missing, or an image cannot be read.
        """
        samples = self.test_samples(storage.data_root)
        found = []
        for position in positions:
            path, label = samples[position]
            image = read_image(path)
            image.thumbnail((PICTURE, PICTURE))
            found.append(Picture(np.asarray(image), label))
        return found

    def augmentation(self, augment: Mapping[str, Any]) -> FolderAugmentation:
        """Read a recipe's augmentation of image files, and build its transform once to check it."""
        from ablate.data.augmentation import FolderAugmentation
        from ablate.data.policies import training_transform

        augmentation = read_augmentation(FolderAugmentation, augment)
        training_transform(self.size, augmentation)
        return augmentation

    def _has_test(self, root: Path) -> bool:
        return (root / "test").is_dir()

    def _samples(self, root: Path, split: str) -> Samples:
        samples = self._read_split(root / split)
        if sorted(class_folders(root / split)) != sorted(class_folders(root / "train")):
            raise UserError(
                f"the class folders of {root / split} are not those of {root / 'train'}",
                "every split needs images in the same class folders",
            )
        return samples

    def _read_split(self, folder: Path) -> Samples:
        """Return the image files under a folder of class folders, each with its class."""
        try:
            classes = class_folders(folder)
            if len(classes) != self.info.num_classes:
                raise UserError(
                    f"{folder} has {len(classes)} class folders, expected {self.info.num_classes}",
                    "set data.num_classes to what is there, or correct the folder",
                )
            return list_images(folder)
        except OSError as error:
            raise self.origin.corrupt(folder, error) from error


def _readable(*splits: Samples) -> tuple[Samples, ...]:
    """Return splits without the images that cannot be read, with a warning.

    Raises:
        UserError: a class loses all of its images in a split.
    """
    faults = verification.unreadable([path for split in splits for path, _ in split], verification.FULL)
    if not faults:
        return splits
    kept = tuple([sample for sample in split if sample[0] not in faults] for split in splits)
    for before, after in zip(splits, kept, strict=True):
        lost = {label for _, label in before} - {label for _, label in after}
        if lost:
            path = next(path for path, label in before if label in lost)
            raise UserError(
                f"no image in {Path(path).parent} can be read: {faults[path]}",
                "restore the files of this class",
            )
    path, reason = next(iter(faults.items()))
    warnings.warn(
        f"{len(faults)} of {sum(map(len, splits))} images cannot be read and are skipped, the first "
        f"{path}: {reason}",
        stacklevel=3,
    )
    return kept


@dataclass(frozen=True, kw_only=True)
class ImageFolder(FolderSet):
    """A folder under the data root with `train/`, `val/` and, if it has one, `test/`."""

    folder: str  # its name under the data root
    num_classes: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("data.num_classes", self.num_classes, at_least=2)

    @property
    def info(self) -> DataInfo:
        """Classes and image shape as configured; `read` compares them with the folder."""
        return DataInfo(self.num_classes, (3, self.size, self.size))

    @property
    def origin(self) -> Origin:
        """The folder of this name under the data root."""
        return Origin(
            title=f"image folder {self.folder!r}",
            contents=("train", "val"),
            folders=(self.folder,),
            ways=(
                f"point infra.data_root=DIR at the folder that holds {self.folder}/",
                "correct data.folder",
            ),
        )


@dataclass(frozen=True, kw_only=True)
class ImageNet(FolderSet):
    """ImageNet-1k (ILSVRC 2012): 1,281,167 training images less the hold-out, 50,000 for test."""

    ORIGIN: ClassVar[Origin] = Origin(
        title="ImageNet",
        contents=("train", "val"),
        folders=("imagenet", ""),
        ways=(
            "get ILSVRC2012 from https://image-net.org (registration), sort both parts into class folders, "
            "and point infra.data_root=DIR at the folder that holds imagenet/train and imagenet/val",
        ),
    )

    @property
    def info(self) -> DataInfo:
        """1,000 classes at the configured size."""
        return DataInfo(1000, (3, self.size, self.size))

    @property
    def origin(self) -> Origin:
        """`imagenet/` under the data root, or the data root itself."""
        return self.ORIGIN

    def _has_test(self, root: Path) -> bool:
        return False  # the official test/ has no labels
