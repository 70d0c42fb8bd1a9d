"""Which positions a sliding neighbourhood reaches, under the three border rules."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache, wraps
from typing import NamedTuple, TypeVar, cast

import torch
from torch import Tensor

Build = TypeVar("Build", bound=Callable[..., object])


def constant(build: Build) -> Build:
    """Cache index tensors by geometry and device, as tensors that training may use whoever asked first."""

    @lru_cache(maxsize=64)
    @wraps(build)
    def cached(*geometry: Hashable) -> object:
        with torch.inference_mode(False):
            return build(*geometry)

    return cast(Build, cached)


class AxisTaps(NamedTuple):
    """The taps of every position along one axis; all three are (length, kernel)."""

    position: Tensor  # index of the neighbour, clamped into the map
    valid: Tensor  # False where the neighbour lies outside the map
    offset: Tensor  # row of the relative-position table that belongs to the tap


def offsets_per_axis(kernel: int, border: str) -> int:
    """Distinct relative offsets along one axis.

    A centred neighbourhood has `kernel`; one that moves inside at the border also sees offsets
    up to ±(kernel - 1), as in NAT's table of (2·kernel - 1)².
    """
    return 2 * kernel - 1 if border == "inside" else kernel


def axis_taps(length: int, kernel: int, dilation: int, border: str) -> AxisTaps:
    """The taps along one axis.

    `inside` follows NAT (Hassani et al., 2023): within each residue class modulo the dilation the
    neighbourhood moves inwards until all of its `kernel` taps are real.

    Raises:
        ValueError: `inside` and an axis too short for `kernel` taps at this dilation.
    """
    radius = (kernel - 1) // 2
    query = torch.arange(length)[:, None]
    tap = torch.arange(kernel)[None, :]
    if border == "inside":
        if length // dilation < kernel:
            raise ValueError(
                f"border 'inside' needs {kernel * dilation} positions per axis, the map has {length}"
            )
        residue = query % dilation
        step = query // dilation  # place within the residue class
        steps = (length - residue + dilation - 1) // dilation
        start = torch.minimum((step - radius).clamp(min=0), steps - kernel)
        position = residue + dilation * (start + tap)
        return AxisTaps(
            position, torch.ones_like(position, dtype=torch.bool), start + tap - step + kernel - 1
        )
    position = query + dilation * (tap - radius)
    valid = (position >= 0) & (position < length)
    return AxisTaps(position.clamp(0, length - 1), valid, tap.expand(length, kernel))


class Neighborhoods(NamedTuple):
    """The taps of every position of a map; L = height · width, T = kernel²."""

    neighbor: Tensor  # (L, T) flat position of the neighbour; L where it lies outside the map
    valid: Tensor  # (L, T)
    offset: Tensor  # (L, T) flat index into the relative-position table


@constant
def neighborhoods(
    height: int, width: int, kernel: int, dilation: int, border: str, device: torch.device
) -> Neighborhoods:
    """The taps of every position, rows first within the map and within the neighbourhood."""
    rows, columns = axis_taps(height, kernel, dilation, border), axis_taps(width, kernel, dilation, border)

    def grid(row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
        shape = (height, width, kernel, kernel)
        return row[:, None, :, None].expand(shape), column[None, :, None, :].expand(shape)

    row, column = grid(rows.position, columns.position)
    row_valid, column_valid = grid(rows.valid, columns.valid)
    row_offset, column_offset = grid(rows.offset, columns.offset)
    shape = (height * width, kernel * kernel)
    valid = (row_valid & column_valid).reshape(shape)
    neighbor = (row * width + column).reshape(shape).where(valid, torch.tensor(height * width))
    offset = (row_offset * offsets_per_axis(kernel, border) + column_offset).reshape(shape)
    return Neighborhoods(neighbor.to(device), valid.to(device), offset.to(device))


@constant
def pair_index(
    height: int, width: int, kernel: int, dilation: int, border: str, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """(L·T,): where each tap's pair stands in a flat (L, L) matrix; which are real, None if all are."""
    found = neighborhoods(height, width, kernel, dilation, border, device)
    length = height * width
    query = torch.arange(length, device=device)[:, None]
    pairs = (query * length + found.neighbor.clamp(max=length - 1)).flatten()
    return pairs, None if border == "inside" else found.valid.flatten()


@constant
def matrix_index(
    height: int, width: int, kernel: int, dilation: int, border: str, device: torch.device
) -> Tensor:
    """(L·L,): which of the flat (L, T) taps stands at each entry of the matrix; L·T where none does."""
    neighbor = neighborhoods(height, width, kernel, dilation, border, device).neighbor
    length, taps = neighbor.shape
    matrix = torch.full((length, length + 1), length * taps, device=device)
    matrix.scatter_(1, neighbor, torch.arange(length * taps, device=device).view(length, taps))
    return matrix[:, :length].flatten()
