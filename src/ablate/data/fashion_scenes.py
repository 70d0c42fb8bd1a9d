"""`fashion_scenes`: scenes with a map of classes, composed of the items of `fashion_mini` at every start."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from ablate.data.contract import MAP, DataInfo, Labelled, LabelledSplits, Storage
from ablate.data.fashion_mini import ARCHIVE, ORIGIN, read_archive
from ablate.data.in_memory import InMemorySet
from ablate.data.options import require_whole
from ablate.data.origin import Origin
from ablate.data.scenes import SIDE, scene


@dataclass(frozen=True)
class FashionScenes(InMemorySet):
    """Scenes of 64×64 pixels with one to four items; 11 classes, of which class 0 is the ground.

    No item is in the scenes of two splits. The scenes depend on these fields alone, not on the seed of a run.
    """

    train: int = 2000  # scenes
    validation: int = 500
    test: int = 500
    seed: int = 0

    origin: ClassVar[Origin] = ORIGIN
    mean, std = (0.307,), (0.242,)

    def __post_init__(self) -> None:
        for name in LabelledSplits._fields:
            require_whole(f"data.{name}", getattr(self, name), at_least=1)
        require_whole("data.seed", self.seed, at_least=0)

    @property
    def info(self) -> DataInfo:
        """Classes and image shape."""
        return DataInfo(11, (1, SIDE, SIDE), self.train, MAP)

    def read(self, storage: Storage) -> LabelledSplits:
        """Compose the scenes of the three splits, once for all runs of this process."""
        return _composed(self.seed, (self.train, self.validation, self.test))


@lru_cache(maxsize=1)
def _composed(seed: int, counts: tuple[int, int, int]) -> LabelledSplits:
    splits = enumerate(zip(read_archive(ARCHIVE), counts, strict=True))
    return LabelledSplits(*(_split(items, (seed, split), count) for split, (items, count) in splits))


def _split(items: Labelled, key: tuple[int, int], count: int) -> Labelled:
    scenes = [scene(items.images[:, 0], items.labels, (*key, index)) for index in range(count)]
    return Labelled(np.stack([one.image[None] for one in scenes]), np.stack([one.map for one in scenes]))
