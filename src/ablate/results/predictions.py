"""Test predictions of a run, image by image, where a task gives every image one class.

The file predictions.npz has no pickles. Of each image, in the order of the split, it has the label and the
predicted class (the smallest unsigned type that holds every class), the probability of the label, and that of
the predicted class (float16): 60 kB for 10,000 images of ten classes before they are compressed.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ablate.store.files import Guard, write_atomically

BINS = 15  # of the calibration error


class Predictions(NamedTuple):
    """Predictions of a split; every array has one entry for each image."""

    label: NDArray[Any]
    predicted: NDArray[Any]
    probability: NDArray[Any]  # of the label
    confidence: NDArray[Any]  # of the predicted class

    @property
    def correct(self) -> NDArray[np.bool_]:
        """True where the predicted class is the label."""
        found: NDArray[np.bool_] = self.label == self.predicted
        return found

    def accuracy_by_class(self) -> dict[int, float]:
        """Accuracy in percent of each class that occurs."""
        images = np.bincount(self.label)
        right = np.bincount(self.label[self.correct], minlength=len(images))
        return {label: 100 * float(right[label] / images[label]) for label in np.flatnonzero(images).tolist()}

    def calibration_error(self) -> float:
        """Expected calibration error in percentage points (Guo et al., 2017, arXiv:1706.04599, equation 3).

        The mean distance of confidence from accuracy, over 15 bins of equal width that are weighted by their
        images.
        """
        confidence = self.confidence.astype(np.float64)
        chosen = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
        gaps = np.bincount(chosen, weights=self.correct - confidence, minlength=BINS)
        return 100 * float(np.abs(gaps).sum() / max(len(confidence), 1))


class Kept(NamedTuple):
    """Predictions of a test split with the names of its classes, as a run keeps them."""

    predictions: Predictions
    names: list[str]  # of the classes; may be empty


def write(path: Path, kept: Kept, guard: Guard = nullcontext) -> None:
    """Write predictions, whole or not at all."""
    label, predicted, probability, confidence = kept.predictions
    whole = np.min_scalar_type(int(max(label.max(initial=0), predicted.max(initial=0))))
    arrays = {
        "label": label.astype(whole),
        "predicted": predicted.astype(whole),
        "probability": probability.astype(np.float16),
        "confidence": confidence.astype(np.float16),
        "names": np.array(kept.names, dtype=np.str_),
    }
    write_atomically(path, lambda stream: np.savez_compressed(stream, allow_pickle=False, **arrays), guard)


def read(path: Path) -> Kept | None:
    """Return the predictions of a file; None if it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = dict(found)
        predictions = Predictions(*(arrays[name] for name in Predictions._fields))
        names = [str(name) for name in arrays["names"]]
    except Exception:  # of whatever reading and unpacking a damaged archive meets
        return None
    alike = {array.shape for array in predictions} == {(len(predictions.label),)}
    whole = all(array.dtype.kind == "u" for array in predictions[:2])
    return Kept(predictions, names) if alike and whole else None
