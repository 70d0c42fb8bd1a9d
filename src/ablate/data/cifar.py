"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) through torchvision, which checks every file's MD5."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ablate.data.contract import DataInfo, Labelled, LabelledSplits, Storage
from ablate.data.in_memory import InMemorySet, with_validation
from ablate.data.origin import Origin

CIFAR10_NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def _origin(title: str, folder: str) -> Origin:
    return Origin(
        title=title,
        contents=(folder,),
        folders=("",),
        ways=(
            f"point infra.data_root=DIR at the folder that holds {folder}/ (the Python version)",
            "allow the download with infra.download=true",
        ),
        downloads=True,
    )


class CIFAR10(InMemorySet):
    """45,000 training, 5,000 validation and 10,000 test images, 3×32×32, 10 classes."""

    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    info = DataInfo(num_classes=10, image_shape=(3, 32, 32), train_images=45_000, class_names=CIFAR10_NAMES)
    origin: ClassVar[Origin] = _origin("CIFAR-10", "cifar-10-batches-py")
    validation_per_class: ClassVar[int] = 500

    def read(self, storage: Storage) -> LabelledSplits:
        """Read from the data root, else from torchvision's download into it."""
        [folder] = self.origin.contents
        if self.origin.find(storage.data_root) is None:
            if not storage.download:
                raise self.origin.missing(storage.data_root)
            self.origin.fetch(storage.data_root, folder, lambda root: self._torchvision(root, download=True))
        try:
            train = _labelled(self._torchvision(storage.data_root, train=True))
            test = _labelled(self._torchvision(storage.data_root, train=False))
        except RuntimeError as error:
            reason = "a file is missing or its MD5 is wrong"
            raise self.origin.corrupt(storage.data_root / folder, reason) from error
        return with_validation(train, test, per_class=self.validation_per_class)

    def _torchvision(self, *arguments: Any, **options: Any) -> Any:
        from torchvision import datasets

        return getattr(datasets, type(self).__name__)(*arguments, **options)


class CIFAR100(CIFAR10):
    """45,000 training, 5,000 validation and 10,000 test images, 3×32×32, 100 fine classes."""

    mean, std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    info = DataInfo(num_classes=100, image_shape=(3, 32, 32), train_images=45_000)
    origin = _origin("CIFAR-100", "cifar-100-python")
    validation_per_class = 50


def _labelled(dataset: Any) -> Labelled:
    images = np.ascontiguousarray(dataset.data.transpose(0, 3, 1, 2))  # (N, H, W, C) → (N, C, H, W)
    return Labelled(images, np.asarray(dataset.targets))
