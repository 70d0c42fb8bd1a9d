"""Validation images that are held out of the training set, the same ones every time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ablate.errors import UserError


def stratified_holdout(
    labels: NDArray[np.integer], per_class: int, *, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split positions into those kept and those held out, `per_class` of each class.

    Args:
        labels: class of each image, (N,).
        per_class: images of each class to hold out.
        seed: of the choice within each class.

    Returns:
        Positions kept and positions held out, each ascending; together they are 0 … N-1.

    Raises:
        UserError: a class has no more than `per_class` images.
    """
    # The legacy RandomState: NumPy promises never to change its stream, so the splits stay as they are.
    random = np.random.RandomState(seed)
    held_of_class = []
    for label in np.unique(labels):
        positions = np.flatnonzero(labels == label)
        if len(positions) <= per_class:
            raise UserError(
                f"class {label} has {len(positions)} images, too few to hold out {per_class} for validation",
                f"lower data.validation_per_class below {len(positions)}",
            )
        held_of_class.append(random.permutation(positions)[:per_class])
    held = np.sort(np.concatenate(held_of_class))
    kept = np.setdiff1d(np.arange(len(labels)), held, assume_unique=True)
    return kept, held


def random_holdout(images: int, held: int, *, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split positions 0 … images-1 into those kept and `held` of them, each ascending.

    Raises:
        UserError: nothing would be left to train on.
    """
    if images <= held:
        raise UserError(
            f"the training split has {images} images, too few to hold out {held} for validation",
            f"lower data.validation_images below {images}",
        )
    order = np.random.RandomState(seed).permutation(images)
    return np.sort(order[held:]), np.sort(order[:held])
