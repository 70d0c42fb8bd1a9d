"""Positions, neighbors and taps of a program: what the kernels of attention over mixed neighbors share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from ablate.kernels._triton.matrix import SMALLEST, WARPS, precision
from ablate.kernels._triton.tiles import power_of_two
from ablate.kernels.geometry import strided

POSITIONS = 64  # of a program: what four warps multiply at once
LOG2_E = tl.constexpr(1.4426950408889634)


@dataclass(frozen=True)
class Mixture:
    """The static operands as the kernels take them, taps and channels filled up with zeros.

    Attributes:
        filters: (K² + 1, TAPS, CHANNELS) in the dtype of the maps: w of each neighbor, and u.
        table: (heads, TAPS), float32.
    """

    filters: Tensor
    table: Tensor
    kernel: int
    head_width: int

    @classmethod
    def of(cls, mix: Tensor, own: Tensor, table: Tensor, kernel: int, dtype: torch.dtype) -> Mixture:
        """Build the mixture from w (d, K², K²), u (d, K²) and b (heads, K²)."""
        width, taps = own.shape
        more_taps, more_channels = (max(power_of_two(n), SMALLEST) - n for n in (taps, width))
        filters = torch.cat([mix.permute(2, 1, 0), own.T[None]]).to(dtype)
        return cls(
            F.pad(filters, (0, more_channels, 0, more_taps)),
            F.pad(table.float(), (0, more_taps)),
            kernel,
            width,
        )

    def unfilled(self, of_filters: Tensor) -> tuple[Tensor, Tensor]:
        """Split an array shaped as the filters into the shapes of w (d, K², K²) and u (d, K²)."""
        taps = self.kernel**2
        found = of_filters[:, :taps, : self.head_width].permute(2, 1, 0)
        return found[..., :taps].contiguous(), found[..., taps].contiguous()

    @property
    def split(self) -> bool:
        """True if tensor cores multiply operands in parts, which takes more registers."""
        return self.filters.dtype == torch.float32

    @property
    def together(self) -> int:
        """Neighbors of one round of a loop: all of them would be too much for a B200's tensor memory."""
        return 1 if self.split else self.kernel

    @property
    def warps(self) -> int:
        """Warps of a program: twice as many for many taps of wide operands, so that nothing spills."""
        _, taps, channels = self.filters.shape
        return 2 * WARPS if taps > SMALLEST and channels * self.filters.itemsize > 64 else WARPS

    def constants(self) -> dict[str, int | str]:
        """The constexpr parameters that all kernels have."""
        _, taps, channels = self.filters.shape
        return {
            "K": self.kernel,
            "HEAD_WIDTH": self.head_width,
            "POSITIONS": POSITIONS,
            "TAPS": taps,
            "CHANNELS": channels,
            "PRECISION": precision(self.filters.dtype),
        }


def tiles(maps: Tensor, positions: int = POSITIONS) -> int:
    """Programs that share the positions of maps (B, H, W, C), whose images follow each other."""
    return strided(maps.shape[:3].numel(), positions)


@triton.jit
def locate_tile(
    tile: tl.tensor, positions: tl.tensor, height: tl.tensor, width: tl.tensor, POSITIONS: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """The first position of a tile, rows and columns (P,) in their images, and which of them exist."""
    first = tl.cast(tile, tl.int64) * POSITIONS  # a batch may hold more than 2³¹ elements
    place = tl.arange(0, POSITIONS)
    within = place < positions - first
    place += (first % (height * width)).to(tl.int32)
    return first, place // width % height, place % width, within


@triton.jit
def step_to(
    neighbor: tl.tensor,
    row: tl.tensor,
    column: tl.tensor,
    within: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    K: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Distance to a neighbor in positions, and the positions (P,) for which it is in the map."""
    down, across = neighbor // K - K // 2, neighbor % K - K // 2
    there_row, there_column = row + down, column + across
    in_row = (there_row >= 0) & (there_row < height)
    return down * width + across, within & in_row & (there_column >= 0) & (there_column < width)


@triton.jit
def load_filters(
    filters: tl.tensor, neighbor: tl.tensor, TAPS: tl.constexpr, CHANNELS: tl.constexpr
) -> tl.tensor:
    """(TAPS, CHANNELS): what a neighbor contributes to every tap."""
    tap, channel = tl.arange(0, TAPS), tl.arange(0, CHANNELS)
    return tl.load(filters + neighbor * (TAPS * CHANNELS) + (tap[:, None] * CHANNELS + channel[None, :]))


@triton.jit
def softmax(logits: tl.tensor, K: tl.constexpr, TAPS: tl.constexpr) -> tl.tensor:
    """Over the taps (P, TAPS); 0 where they are filled up."""
    logits = tl.where((tl.arange(0, TAPS) < K * K)[None, :], logits * LOG2_E, -float("inf"))
    weight = tl.exp2(logits - tl.max(logits, axis=1)[:, None])
    return weight / tl.sum(weight, axis=1)[:, None]
