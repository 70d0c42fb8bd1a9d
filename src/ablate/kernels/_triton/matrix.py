"""The matrix form: where it pays, and how much of a sum one of its programs computes.

A tile of 8 × 8 positions meets 8 + K − 1 rows of as many neighbors. For one of these rows at a
time the filters of the tile are laid out as a matrix (64 positions, neighbors in the row), zero
where a neighbor is not a tap, so that tensor cores do the sum: they multiply 16-bit operands
exactly and add in float32. Most entries are zero, and it still takes far fewer instructions than
the taps form does, which converts every operand to float32. Float32 operands would have to be
split into three parts each, after which as many instructions are left as in the taps form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ablate.kernels._triton.launch import Launch, border_rule
from ablate.kernels._triton.tiles import power_of_two
from ablate.kernels.geometry import Neighborhood, strided

SIDE = 8  # positions along each side of a tile
SMALLEST = 16  # channels and neighbors in a row: what tensor cores multiply at once
WIDEST = 128  # channels of one program
SPAN = 64  # neighbors in a row of one program
WARPS = 4


@dataclass(frozen=True)
class MatrixTile:
    """The part of the output of one program: 8 × 8 positions of one residue class and one head."""

    channels: int  # of the head, a power of two
    span: int  # neighbors in a row, a power of two
    programs: int

    @classmethod
    def of(
        cls, batch: int, height: int, width: int, kernel: int, dilation: int, heads: int, head_width: int
    ) -> MatrixTile:
        """The tile for maps of `height` × `width` positions, outputs and neighbors alike."""
        channels = min(max(power_of_two(head_width), SMALLEST), WIDEST)
        span = max(power_of_two(SIDE + kernel - 1), SMALLEST)
        tiles = [strided(strided(length, dilation), SIDE) for length in (height, width)]
        return cls(channels, span, batch * dilation**2 * tiles[0] * tiles[1] * heads)

    def parts(self, head_width: int) -> int:
        """Programs that share the channels of a head."""
        return strided(head_width, self.channels)

    def constants(self) -> dict[str, int]:
        """The tile as a kernel's constexpr parameters."""
        return {"SIDE": SIDE, "SPAN": self.span, "CHANNELS": self.channels}


def pays(maps: Tensor, head_width: int, neighborhood: Neighborhood) -> bool:
    """Return True if the matrix form takes fewer instructions, counted in the machine code of both.

    At K = 3 nine of 160 entries of the matrices are taps: only wide heads are worth them.

    Args:
        maps: (B, H, W, C), one of the operands.
        head_width: channels of a head.
        neighborhood: of the sum.
    """
    kernel, dilation, border, stride = neighborhood
    if maps.dtype not in (torch.bfloat16, torch.float16) or stride > 1 or border == "reflect":
        return False
    if SIDE + kernel - 1 > SPAN or min(maps.shape[1:3]) < dilation * SIDE // 2:
        return False
    return kernel >= 3 and head_width >= (12 if kernel >= 5 else 48)


def matrix_launch(
    kernel: Any,
    tensors: Mapping[str, Tensor | None],
    heads: int,
    neighborhood: Neighborhood,
    *,
    split_heads: bool = False,
) -> Launch:
    """Build the launch of a sum in the matrix form.

    Args:
        kernel: the Triton function.
        tensors: its tensors by name; the first is a map (B, H, W, C).
        heads: number of heads.
        neighborhood: of the sum, with stride 1.
        split_heads: several programs share the channels of a wide head.
    """
    maps = next(iter(tensors.values()))
    assert maps is not None
    batch, height, width, channels = maps.shape
    head_width = channels // heads
    tile = MatrixTile.of(batch, height, width, neighborhood.kernel, neighborhood.dilation, heads, head_width)
    return Launch(
        kernel,
        tile.programs * (tile.parts(head_width) if split_heads else 1),
        {**tensors, "height": height, "width": width, "heads": heads},
        {
            "K": neighborhood.kernel,
            "DILATION": neighborhood.dilation,
            "BORDER": border_rule(height, width, neighborhood),
            "HEAD_WIDTH": head_width,
            **tile.constants(),
        },
        WARPS,
    )


def precision(dtype: torch.dtype) -> str:
    """Precision of tensor cores: float32 as three products of its parts, 16-bit operands directly."""
    return "tf32x3" if dtype == torch.float32 else "ieee"


def stages(dtype: torch.dtype) -> int:
    """Rows that an attention loads ahead: float32 operands in parts leave few registers for them."""
    return 2 if dtype == torch.float32 else 3
