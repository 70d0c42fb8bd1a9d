"""Make `fashion_mini.npz` from the original files of Fashion-MNIST.

python -m ablate.data.fashion_mini.make --source /usr/share/datasets/fashion-mnist
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from ablate.data.contract import Labelled, LabelledSplits
from ablate.data.fashion_mini import ARCHIVE
from ablate.data.fashion_mnist import DEBIAN_FOLDER, read_original
from ablate.data.holdout import stratified_holdout
from ablate.store.files import write_atomically

SEED = 2017  # the year of Fashion-MNIST
TRAIN_PER_CLASS, VALIDATION_PER_CLASS, TEST_PER_CLASS = 1000, 200, 200


def choose(train: Labelled, test: Labelled) -> LabelledSplits:
    """The extract: equally many images of each class, in the order of the original files."""
    _, drawn = stratified_holdout(train.labels, TRAIN_PER_CLASS + VALIDATION_PER_CLASS, seed=SEED)
    _, drawn_test = stratified_holdout(test.labels, TEST_PER_CLASS, seed=SEED)
    extract = train.at(drawn)
    kept, held = stratified_holdout(extract.labels, VALIDATION_PER_CLASS, seed=SEED)
    return LabelledSplits(extract.at(kept), extract.at(held), test.at(drawn_test))


def main() -> None:
    """Write the archive."""
    parser = argparse.ArgumentParser(description="Make fashion_mini.npz from the files of Fashion-MNIST.")
    parser.add_argument("--source", type=Path, default=DEBIAN_FOLDER, help="folder of the four IDX files")
    parser.add_argument("--output", type=Path, default=ARCHIVE, help="the archive to write")
    arguments = parser.parse_args()
    arrays: dict[str, Any] = {}
    for name, split in choose(*read_original(arguments.source))._asdict().items():
        arrays[f"{name}_images"] = split.images[:, 0]
        arrays[f"{name}_labels"] = split.labels
    write_atomically(arguments.output, lambda stream: np.savez_compressed(stream, **arrays))


if __name__ == "__main__":
    main()
