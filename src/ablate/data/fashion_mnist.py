"""Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017, arXiv:1708.07747) from its four IDX files."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from ablate.data.contract import DataInfo, Labelled, LabelledSplits, Storage
from ablate.data.idx import read_idx
from ablate.data.in_memory import InMemorySet, with_validation
from ablate.data.origin import Origin

NAMES = (
    *("T-shirt", "trousers", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_SHAPES = {
    "train-images-idx3-ubyte.gz": (60_000, 28, 28),
    "train-labels-idx1-ubyte.gz": (60_000,),
    "t10k-images-idx3-ubyte.gz": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte.gz": (10_000,),
}
ORIGIN = Origin(
    title="Fashion-MNIST",
    contents=tuple(_SHAPES),
    folders=(str(DEBIAN_FOLDER), "fashion-mnist", "FashionMNIST/raw"),
    ways=(
        "install Debian's package: apt install dataset-fashion-mnist",
        "point infra.data_root=DIR at a folder that holds fashion-mnist/ with the four files",
        "allow the download with infra.download=true",
    ),
    downloads=True,
)


class FashionMNIST(InMemorySet):
    """54,000 training, 6,000 validation and 10,000 test images of clothes, 1×28×28, 10 classes."""

    origin: ClassVar[Origin] = ORIGIN

    mean, std = (0.2860,), (0.3530,)
    info = DataInfo(num_classes=10, image_shape=(1, 28, 28), train_images=54_000, class_names=NAMES)

    def read(self, storage: Storage) -> LabelledSplits:
        """Read from Debian's package, else from the data root, else from torchvision's download."""
        folder = ORIGIN.find(storage.data_root)
        if folder is None and storage.download:
            _download(storage.data_root)
            folder = ORIGIN.find(storage.data_root)
        if folder is None:
            raise ORIGIN.missing(storage.data_root)
        train, test = read_original(folder)
        return with_validation(train, test, per_class=600)


def read_original(folder: Path) -> tuple[Labelled, Labelled]:
    """The original training and test set from the four IDX files in `folder`.

    Raises:
        UserError: a file is missing or damaged.
    """
    arrays = []
    for name, shape in _SHAPES.items():
        try:
            array = read_idx(folder / name)
            if array.shape != shape:
                raise ValueError(f"its shape is {array.shape}, expected {shape}")
        except (OSError, ValueError) as error:
            raise ORIGIN.corrupt(folder / name, error) from error
        arrays.append(array)
    train_images, train_labels, test_images, test_labels = arrays
    return Labelled(train_images[:, None], train_labels), Labelled(test_images[:, None], test_labels)


def _download(data_root: Path) -> None:
    from torchvision.datasets import FashionMNIST as Downloader

    ORIGIN.fetch(data_root, "FashionMNIST", lambda root: Downloader(root, download=True))
