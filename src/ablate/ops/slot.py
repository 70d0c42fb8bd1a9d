"""The place that an operator takes in a host."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Slot:
    """A place in a host that an operator fills.

    `heads` is the host's own number of heads (what `1x` means), `resolution` its map in the
    host's build (None if any), `stride` that of the replaced layer, `index` the block's place
    within its stage (shifted windows alternate with it).
    """

    dim: int
    heads: int
    resolution: tuple[int, int] | None = None
    stride: int = 1
    index: int = 0
