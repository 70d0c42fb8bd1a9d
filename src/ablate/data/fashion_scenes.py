"""`fashion_scenes`: scenes composed of the items of `fashion_mini` at every start, with maps and objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from ablate.data.contract import (
    INSTANCES,
    MAP,
    Batching,
    DataInfo,
    Labelled,
    LabelledSplits,
    Scale,
    Splits,
    Storage,
)
from ablate.data.fashion_mini import ARCHIVE, ORIGIN, read_archive
from ablate.data.fashion_mnist import NAMES
from ablate.data.in_memory import InMemorySet
from ablate.data.options import require_whole
from ablate.data.origin import Origin
from ablate.data.scenes import SIDE, Scene, scene

AREAS = (16**2, 22**2)  # pixels below which an item is small, and from which on it is large


@dataclass(frozen=True)
class FashionScenes(InMemorySet):
    """Scenes of 64×64 pixels with one to four items; 11 classes, of which class 0 is the ground.

    Objects have the other ten, from 0 on.
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
        return DataInfo(
            len(NAMES) + 1, (1, SIDE, SIDE), self.train, MAP, len(NAMES), areas=AREAS, class_names=NAMES
        )

    def read(self, storage: Storage) -> LabelledSplits:
        """Compose the scenes of the three splits, once for all runs of this process."""
        return LabelledSplits(*(_labelled(scenes) for scenes in self.scenes()))

    def splits(self, augment: Mapping[str, Any], batching: Batching, storage: Storage) -> Splits:
        """The scenes on the device, in batches; labelled with maps or with instances."""
        if batching.annotation != INSTANCES:
            return super().splits(augment, batching, storage)
        from ablate.data.instance_loader import instance_splits

        scale = Scale(self.mean, self.std)
        return instance_splits(self.info, self.scenes(), scale, self.augmentation(augment), batching)

    def scenes(self) -> tuple[list[Scene], list[Scene], list[Scene]]:
        """Return the scenes of training, validation and test."""
        return _composed(self.seed, self.train, self.validation, self.test)


@lru_cache(maxsize=1)
def _composed(
    seed: int, train: int, validation: int, test: int
) -> tuple[list[Scene], list[Scene], list[Scene]]:
    first, second, third = read_archive(ARCHIVE)
    return (
        _split(first, (seed, 0), train),
        _split(second, (seed, 1), validation),
        _split(third, (seed, 2), test),
    )


def _split(items: Labelled, key: tuple[int, int], count: int) -> list[Scene]:
    return [scene(items.images[:, 0], items.labels, (*key, index)) for index in range(count)]


def _labelled(scenes: list[Scene]) -> Labelled:
    return Labelled(np.stack([one.image[None] for one in scenes]), np.stack([one.map for one in scenes]))
