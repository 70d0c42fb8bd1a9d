"""Geometry of a sliding neighborhood: the positions that it reaches under each border rule."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache, wraps
from typing import NamedTuple, Required, TypedDict, TypeVar, cast

import torch
from torch import Tensor

Build = TypeVar("Build", bound=Callable[..., object])


def constant(build: Build) -> Build:
    """Cache index tensors by geometry and device; training may use those that inference computed.

    Under torch.compile nothing is cached; the compiler folds the constants.
    """

    @lru_cache(maxsize=64)
    def cached(*geometry: Hashable) -> object:
        with torch.inference_mode(False):
            return build(*geometry)

    @wraps(build)
    def get(*geometry: Hashable) -> object:
        return build(*geometry) if torch.compiler.is_compiling() else cached(*geometry)

    return cast(Build, get)


class Neighborhood(NamedTuple):
    """A sliding neighborhood: kernel² taps around every `stride`-th position.

    `zero` and `mask` give the same taps; they differ in which of them count in a norm (`valid`): under `mask`
    those inside the map, under `zero` all of them, with value 0 outside. `inside` moves the neighborhood into
    the map. `reflect` mirrors the map at its border; it exists for kernels only (SAN) and is refused as
    `op.region.border`.

    Attributes:
        kernel: K, odd.
        dilation: distance between two taps, in positions.
        border: `zero`, `mask`, `inside` or `reflect`; see `axis_taps`.
        stride: distance between the positions that have an output.
    """

    kernel: int
    dilation: int = 1
    border: str = "zero"
    stride: int = 1

    @property
    def taps(self) -> int:
        """Positions that one position meets."""
        return self.kernel**2

    @property
    def offsets(self) -> int:
        """Entries of a table of relative positions."""
        return offsets_per_axis(self.kernel, self.border) ** 2


class Sliding(TypedDict, total=False):
    """The fields of a `Neighborhood`, as arguments of a function by name."""

    kernel: Required[int]
    dilation: int
    border: str
    stride: int


class AxisTaps(NamedTuple):
    """The taps of every position along one axis; all three are (⌈length / stride⌉, kernel)."""

    position: Tensor  # index of the neighbor, clamped into the map
    valid: Tensor  # False where the neighbor lies outside the map
    offset: Tensor  # row of the relative-position table that belongs to the tap


def offsets_per_axis(kernel: int, border: str) -> int:
    """Distinct relative offsets along one axis.

    A centred neighborhood has `kernel`; one that moves inside at the border also sees offsets
    up to ±(kernel - 1), as in NAT's table of (2·kernel - 1)².
    """
    return 2 * kernel - 1 if border == "inside" else kernel


def axis_taps(length: int, neighborhood: Neighborhood) -> AxisTaps:
    """The taps along one axis, of every `stride`-th position.

    `reflect` mirrors what lies outside at the outermost position. `inside` follows NAT (Hassani et al.,
    2023): within each residue class modulo the dilation the neighborhood moves inwards until all of
    its `kernel` taps are real.

    Raises:
        ValueError: `inside` and an axis too short for `kernel` taps at this dilation.
    """
    kernel, dilation, border, stride = neighborhood
    radius = (kernel - 1) // 2
    query = torch.arange(0, length, stride)[:, None]
    tap = torch.arange(kernel)[None, :]
    if border == "reflect":
        position = query + dilation * (tap - radius)
        if radius * dilation >= length:
            raise ValueError(f"border 'reflect' needs more than {radius * dilation} positions per axis")
        position = (length - 1 - (length - 1 - position.abs()).abs()).contiguous()
        return AxisTaps(position, torch.ones_like(position, dtype=torch.bool), tap.expand_as(position))
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
    return AxisTaps(position.clamp(0, length - 1), valid, tap.expand_as(position))


class MapTaps(NamedTuple):
    """The taps of a map's positions; L = height · width, T = kernel², Q of the L positions at a stride."""

    neighbor: Tensor  # (Q, T) flat position of the neighbor; L where it lies outside the map
    valid: Tensor  # (Q, T)
    offset: Tensor  # (Q, T) flat index into the relative-position table


def strided(length: int, stride: int) -> int:
    """Positions that are left of `length` at a stride: 0, stride, 2·stride, … below it."""
    return -(-length // stride)


@constant
def map_taps(height: int, width: int, neighborhood: Neighborhood, device: torch.device) -> MapTaps:
    """The taps of every position at `stride`, rows first within the map and within the neighborhood."""
    kernel, _, border, _ = neighborhood
    rows = axis_taps(height, neighborhood)
    columns = axis_taps(width, neighborhood)

    def grid(row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
        shape = (row.shape[0], column.shape[0], kernel, kernel)
        return row[:, None, :, None].expand(shape), column[None, :, None, :].expand(shape)

    row, column = grid(rows.position, columns.position)
    row_valid, column_valid = grid(rows.valid, columns.valid)
    row_offset, column_offset = grid(rows.offset, columns.offset)
    valid = (row_valid & column_valid).reshape(-1, kernel * kernel)
    neighbor = (row * width + column).reshape(valid.shape).where(valid, torch.tensor(height * width))
    offset = (row_offset * offsets_per_axis(kernel, border) + column_offset).reshape(valid.shape)
    return MapTaps(neighbor.to(device), valid.to(device), offset.to(device))


@constant
def pair_index(
    height: int, width: int, neighborhood: Neighborhood, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """(Q·T,): index of each tap's pair in a flat (Q, L) matrix; which are real, None if all are."""
    found = map_taps(height, width, neighborhood, device)
    length = height * width
    query = torch.arange(found.neighbor.shape[0], device=device)[:, None]
    pairs = (query * length + found.neighbor.clamp(max=length - 1)).flatten()
    return pairs, None if neighborhood.border == "inside" else found.valid.flatten()


@constant
def matrix_index(height: int, width: int, neighborhood: Neighborhood, device: torch.device) -> Tensor:
    """(Q·L,): index of the flat (Q, T) tap at each entry of the matrix; Q·T if there is none."""
    neighbor = map_taps(height, width, neighborhood, device).neighbor
    taps, length = neighbor.numel(), height * width
    matrix = torch.full((neighbor.shape[0], length + 1), taps, device=device)
    matrix.scatter_(1, neighbor, torch.arange(taps, device=device).view(neighbor.shape))
    return matrix[:, :length].flatten()
