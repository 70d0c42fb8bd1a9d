"""Positions, taps and channels of a Triton program: what all kernels here begin with."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def locate(
    height: tl.tensor,
    width: tl.tensor,
    heads: tl.tensor,
    HEAD_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    HEADS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """This program's image, rows (P,), columns (P,), heads (HEADS,) and channels of a head (CHANNELS,).

    The heads of a tile of positions are neighbors in the order of programs, and so are the tiles
    of an image: what several of them read is then still in the L2 cache.
    """
    WIDTH_PARTS: tl.constexpr = (HEAD_WIDTH + CHANNELS - 1) // CHANNELS
    program = tl.program_id(0)
    parts = tl.cdiv(heads, HEADS) * WIDTH_PARTS
    part = program % parts
    program = program // parts
    across = tl.cdiv(width, COLUMNS)
    tile_column = program % across
    program = program // across
    down = tl.cdiv(height, ROWS)
    tile_row = program % down
    image = (program // down).to(tl.int64)  # a batch may hold more than 2³¹ elements
    place = tl.arange(0, ROWS * COLUMNS)
    row = tile_row * ROWS + place // COLUMNS
    column = tile_column * COLUMNS + place % COLUMNS
    head = part // WIDTH_PARTS * HEADS + tl.arange(0, HEADS)
    channel = part % WIDTH_PARTS * CHANNELS + tl.arange(0, CHANNELS)
    return image, row, column, head, channel


@triton.jit
def first_neighbor(
    position: tl.tensor,
    length: tl.tensor,
    K: tl.constexpr,
    DILATION: tl.constexpr,
    BORDER: tl.constexpr,
) -> tl.tensor:
    """The neighbor at tap 0 along one axis, before it is mirrored; the others follow every DILATION.

    `inside` (NAT, Hassani et al., 2023) moves the neighborhood into the map among the positions
    of one residue class modulo the dilation.
    """
    RADIUS: tl.constexpr = (K - 1) // 2
    if BORDER == "inside":
        residue = position % DILATION
        steps = (length - residue + DILATION - 1) // DILATION
        start = tl.minimum(tl.maximum(position // DILATION - RADIUS, 0), steps - K)
        return residue + start * DILATION
    else:
        return position - RADIUS * DILATION


@triton.jit
def mirrored(neighbor: tl.tensor, length: tl.tensor, BORDER: tl.constexpr) -> tl.tensor:
    """Mirror positions outside of the map at the outermost position, under the border `reflect`."""
    if BORDER == "reflect":
        return length - 1 - tl.abs(length - 1 - tl.abs(neighbor))
    else:
        return neighbor
