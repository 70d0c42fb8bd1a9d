"""Tiles of one residue class: what the kernels in matrix form begin with.

At a dilation δ the positions of one residue modulo δ meet only each other, so that each of the δ²
classes is a map of its own without dilation. Its positions are counted in steps of δ.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def locate_class(
    height: tl.tensor,
    width: tl.tensor,
    parts: tl.tensor,
    DILATION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """This program's image, residues (row, column), first steps of its tile (row, column) and part."""
    program = tl.program_id(0)
    part = program % parts
    program = program // parts
    across = tl.cdiv(tl.cdiv(width, DILATION), COLUMNS)
    column = program % across * COLUMNS
    program = program // across
    down = tl.cdiv(tl.cdiv(height, DILATION), ROWS)
    row = program % down * ROWS
    program = program // down
    residue_column = program % DILATION
    program = program // DILATION
    image = (program // DILATION).to(tl.int64)  # a batch may hold more than 2³¹ elements
    return image, program % DILATION, residue_column, row, column, part


@triton.jit
def steps_of(length: tl.tensor, residue: tl.tensor, DILATION: tl.constexpr) -> tl.tensor:
    """Positions of a residue class along one axis."""
    return (length - residue + DILATION - 1) // DILATION


@triton.jit
def first_step(step: tl.tensor, steps: tl.tensor, K: tl.constexpr, BORDER: tl.constexpr) -> tl.tensor:
    """The neighbor at tap 0; `inside` (NAT, Hassani et al., 2023) moves it into the map."""
    if BORDER == "inside":
        return tl.minimum(tl.maximum(step - K // 2, 0), steps - K)
    else:
        return step - K // 2


@triton.jit
def first_reader(step: tl.tensor, K: tl.constexpr, BORDER: tl.constexpr) -> tl.tensor:
    """The first position whose neighborhood holds `step`."""
    if BORDER == "inside":
        return tl.where(step < K, 0, step - K // 2)
    else:
        return tl.maximum(step - K // 2, 0)


@triton.jit
def last_reader(step: tl.tensor, steps: tl.tensor, K: tl.constexpr, BORDER: tl.constexpr) -> tl.tensor:
    """The last position whose neighborhood holds `step`."""
    if BORDER == "inside":
        return tl.where(step >= steps - K, steps - 1, step + K // 2)
    else:
        return tl.minimum(step + K // 2, steps - 1)


@triton.jit
def load_channels(
    maps: tl.tensor,
    at: tl.tensor,
    real: tl.tensor,
    part: tl.tensor,
    HEAD_WIDTH: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> tl.tensor:
    """(P, CHANNELS): some channels of a head at offsets (P,), 0 where they are not real."""
    channel = part + tl.arange(0, CHANNELS)
    mask = real[:, None] & (channel < HEAD_WIDTH)[None, :]
    return tl.load(maps + (at[:, None] + channel[None, :]), mask=mask, other=0.0)
