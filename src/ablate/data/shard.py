"""A batch among several processes: which of its images each one computes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """The share of process `rank` among `world` processes that compute one run together.

    All that is drawn for a batch is drawn for the whole of it by every process, so that a run has the
    same order and augmentation however many compute it.
    """

    rank: int = 0
    world: int = 1

    def rows(self, images: int) -> list[int]:
        """The images of a training batch of `images`, a multiple of `world`.

        They come in mirrored pairs, image i with image −1 − i: mixup and cutmix mix an image with its
        mirror image in the batch, so that a share that is mixed is the share of the mixed batch.
        """
        half, single = divmod(images // self.world, 2)
        front = range(self.rank * half, (self.rank + 1) * half)
        middle = [self.world * half + self.rank] if single else []
        return [*front, *middle, *(images - 1 - row for row in reversed(front))]

    def batches(self, batches: int, first: int = 0) -> range:
        """The batches of a split that is evaluated: whole ones, as in one process."""
        return range(first + self.rank, batches, self.world)


WHOLE = Shard()
