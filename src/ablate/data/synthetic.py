"""Random images that a network can learn to tell apart: for tests and debugging, not for claims."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ablate.data.contract import DataInfo, Labelled, LabelledSplits, Storage
from ablate.data.in_memory import InMemorySet
from ablate.data.options import require_between, require_whole

_GRAY, _CONTRAST = 127.5, 40.0  # a pattern of unit variance then rarely leaves the range of a byte


@dataclass(frozen=True)
class Synthetic(InMemorySet):
    """A smooth random pattern for each class, and white noise on every image.

    The images depend on these fields alone, not on the seed of a run.
    """

    num_classes: int = 4
    channels: int = 3
    size: int = 28  # height and width
    train: int = 256  # images, dealt out to the classes in turn
    validation: int = 64
    test: int = 64
    noise: float = 0.5  # standard deviation, in units of the pattern's
    seed: int = 0

    mean, std = (0.5,), (0.2,)

    def __post_init__(self) -> None:
        require_whole("data.num_classes", self.num_classes, at_least=2)
        for name in ("channels", "size", "train", "validation", "test"):
            require_whole(f"data.{name}", getattr(self, name), at_least=1)
        require_whole("data.seed", self.seed, at_least=0)
        require_between("data.noise", self.noise, 0, 10)

    @property
    def info(self) -> DataInfo:
        """Classes and image shape as configured."""
        return DataInfo(self.num_classes, (self.channels, self.size, self.size), self.train)

    def read(self, storage: Storage) -> LabelledSplits:
        """Draw the patterns, then the splits one after the other."""
        random = np.random.RandomState(self.seed)
        patterns = self._patterns(random)
        train, validation, test = (
            self._draw(patterns, count, random) for count in (self.train, self.validation, self.test)
        )
        return LabelledSplits(train, validation, test)

    def _patterns(self, random: np.random.RandomState) -> np.ndarray:
        """One plane wave for each class and channel, of unit variance: (classes, C, H, W)."""
        shape = (self.num_classes, self.channels, 1, 1)
        rows, columns = np.mgrid[: self.size, : self.size] / self.size
        frequency_y, frequency_x = random.uniform(-2, 2, (2, *shape))
        phase = random.uniform(0, 1, shape)
        return np.sqrt(2) * np.sin(2 * np.pi * (frequency_y * rows + frequency_x * columns + phase))

    def _draw(self, patterns: np.ndarray, count: int, random: np.random.RandomState) -> Labelled:
        labels = np.arange(count) % self.num_classes
        images = patterns[labels] + self.noise * random.standard_normal((count, *patterns.shape[1:]))
        return Labelled(np.clip(_GRAY + _CONTRAST * images, 0, 255).astype(np.uint8), labels)
