"""`fashion_mini`: 14,000 images of Fashion-MNIST, shipped with the package so that a study runs at once.

`ORIGIN.md` says where the images come from, `LICENSE` under which terms, `make.py` how they were chosen.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np

from ablate.data.contract import DataInfo, Labelled, LabelledSplits, Storage
from ablate.data.fashion_mnist import NAMES, FashionMNIST
from ablate.data.origin import Origin

ARCHIVE = Path(__file__).with_name("fashion_mini.npz")
ORIGIN = Origin(
    title="fashion_mini",
    contents=(ARCHIVE.name,),
    folders=(str(ARCHIVE.parent),),
    ways=("reinstall ablate, which ships this file",),
)


class FashionMini(FashionMNIST):
    """10,000 training, 2,000 validation and 2,000 test images of clothes, 1×28×28, 10 classes."""

    info = DataInfo(num_classes=10, image_shape=(1, 28, 28), train_images=10_000, class_names=NAMES)
    origin: ClassVar[Origin] = ORIGIN

    def read(self, storage: Storage) -> LabelledSplits:
        """Read from the archive inside the package."""
        return read_archive(ARCHIVE)


def read_archive(path: Path) -> LabelledSplits:
    """The splits in an archive that `make.py` wrote.

    Raises:
        UserError: the archive is missing, truncated or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            splits = (
                Labelled(arrays[f"{name}_images"][:, None], arrays[f"{name}_labels"])
                for name in LabelledSplits._fields
            )
            return LabelledSplits(*splits)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ORIGIN.corrupt(path, error) from error
