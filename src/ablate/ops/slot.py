"""The place that an operator takes in a host."""

from __future__ import annotations

from dataclasses import dataclass

ROLL_THEN_PAD, PAD_THEN_ROLL = "roll_then_pad", "pad_then_roll"
SHIFT_ORDERS = (ROLL_THEN_PAD, PAD_THEN_ROLL)


@dataclass(frozen=True)
class Slot:
    """A place in a host that an operator fills.

    `heads` is the host's own number of heads (what `1x` means), `resolution` its map in the
    host's build (None if any), `stride` that of the replaced layer, `index` the block's place
    within its stage (shifted windows alternate with it), `shift_order` what shifted windows do first
    with a map that they do not tile, `deformable` True where the convolutions of an operator are to
    be deformable.
    """

    dim: int
    heads: int
    resolution: tuple[int, int] | None = None
    stride: int = 1
    index: int = 0
    shift_order: str = ROLL_THEN_PAD
    deformable: bool = False
