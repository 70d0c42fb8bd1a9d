"""v[j, c] = Σ_{i, t: n(i, t) = j} F[i, g, t] · y[i, c], the transpose of `aggregate`, on a GPU."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ablate.ops.kernels.tiling.launch import Launch
from ablate.ops.kernels.tiling.neighbors import locate
from ablate.ops.kernels.tiling.reach import reach
from ablate.ops.kernels.tiling.tiles import Tile

TAPS = 8  # of a row at a time: where neighbourhoods crowd at the border, only tiles there take more


def launch_spread_taps(
    outputs: Tensor,
    filters: Tensor,
    height: int,
    width: int,
    kernel: int,
    dilation: int,
    border: str,
    stride: int,
) -> tuple[Launch, Tensor]:
    """The call that computes the sum, and the tensor that it fills."""
    batch, rows, columns, channels = outputs.shape
    heads = filters.shape[3]
    head_width = channels // heads
    row_reach = reach(height, kernel, dilation, border, stride, outputs.device)
    column_reach = reach(width, kernel, dilation, border, stride, outputs.device)
    across = column_reach.shape[1]
    tile = Tile.of(height, width, min(across, TAPS), heads, head_width, outputs.itemsize)
    out = outputs.new_empty(batch, height, width, channels)
    launch = Launch(
        spread_taps_kernel,
        tile.programs(batch, height, width, tile.parts(heads, head_width)),
        {
            "outputs": outputs,
            "filters": filters,
            "out": out,
            "row_reach": row_reach,
            "column_reach": column_reach,
            "height": height,
            "width": width,
            "rows": rows,
            "columns": columns,
            "heads": heads,
        },
        {
            "K": kernel,
            "DOWN": row_reach.shape[1],
            "ACROSS": across,
            "HEAD_WIDTH": head_width,
            **tile.constants(),
        },
        tile.warps,
    )
    return launch, out


@triton.jit
def most(table: tl.tensor, position: tl.tensor, length: tl.tensor, M: tl.constexpr) -> tl.tensor:
    """The most pairs that reach one of the positions (P,) along one axis."""
    count = tl.zeros_like(position)
    for pair in tl.range(0, M):
        count += (tl.load(table + position * M + pair, mask=position < length, other=-1) >= 0).to(tl.int32)
    return tl.max(count)


@triton.jit(do_not_specialize=["height", "width", "rows", "columns", "heads"])
def spread_taps_kernel(
    outputs: tl.tensor,
    filters: tl.tensor,
    out: tl.tensor,
    row_reach: tl.tensor,
    column_reach: tl.tensor,
    height: int,
    width: int,
    rows: int,
    columns: int,
    heads: int,
    K: tl.constexpr,
    DOWN: tl.constexpr,
    ACROSS: tl.constexpr,
    HEAD_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    TAPS: tl.constexpr,
    HEADS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """One tile of inputs, each gathering from the outputs that read it: no atomics, the same bits always.

    Who reads a position is looked up per axis in the tables of `reach`. Under `inside` a position
    near the border has up to 1.5 · K readers along an axis instead of K, with a stride about
    K / stride: from tables every rule and stride takes the same few instructions and no more rounds
    than a tile needs, and what they hold comes from `axis_taps`, as in the reference.

    Bytes and operations are those of `aggregate_taps_kernel`: Swin-T's stages 1 and 3 at batch 64 in
    float32 are bound by memory to 81 and 20 µs on an H100. A row takes 151 instructions for 32
    products per thread: expect 35 % and 25 % of that bound.
    """
    image, row, column, head, channel = locate(
        height, width, heads, HEAD_WIDTH, ROWS, COLUMNS, HEADS, CHANNELS
    )
    real = (head < heads)[:, None] & (channel < HEAD_WIDTH)[None, :]  # (HEADS, CHANNELS)
    of_map = head[:, None] * HEAD_WIDTH + channel[None, :]
    line = heads * HEAD_WIDTH
    outputs += image * rows * columns * line
    filters += image * rows * columns * heads * (K * K)
    down = DOWN if DOWN <= K else most(row_reach, row, height, DOWN)
    across = ACROSS if ACROSS <= TAPS else most(column_reach, column, width, ACROSS)
    total = tl.zeros((ROWS * COLUMNS, HEADS, CHANNELS), tl.float32)
    for start in tl.range(0, across, TAPS):
        pair = start + tl.arange(0, TAPS)
        # Of a position the outputs and taps, taps first for the outputs and last for the filters:
        # the threads of a warp then meet all taps that one output has in the row.
        met = load_pairs(column_reach, column[None, :], pair[:, None], width, ACROSS)  # (TAPS, P)
        met_last = load_pairs(column_reach, column[:, None], pair[None, :], width, ACROSS)  # (P, TAPS)
        output_at = (met // K * line)[:, :, None, None] + of_map
        output_real = (met >= 0)[:, :, None, None] & real
        filter_at = (met_last // K)[:, None, :] * heads + head[None, :, None]
        filter_at = filter_at * (K * K) + (met_last % K)[:, None, :]  # (P, HEADS, TAPS)
        filter_real = (met_last >= 0)[:, None, :] & (head < heads)[None, :, None]
        for tap_row in tl.range(0, down):
            met_row = load_pairs(row_reach, row, tap_row, height, DOWN)  # (P,)
            row_at = met_row // K * columns
            output = tl.load(
                outputs + ((row_at * line)[:, None, None] + output_at),
                mask=output_real & (met_row >= 0)[:, None, None],
                other=0.0,
            )
            weight = tl.load(
                filters + ((row_at * heads * (K * K) + met_row % K * K)[:, None, None] + filter_at),
                mask=filter_real & (met_row >= 0)[:, None, None],
                other=0.0,
            )
            weight = tl.permute(weight, (2, 0, 1))
            total += tl.sum(weight[:, :, :, None].to(tl.float32) * output.to(tl.float32), axis=0)
    out += image * height * width * line
    at = (row * width + column)[:, None, None] * line + of_map
    within = (row < height) & (column < width)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=within[:, None, None] & real)


@triton.jit
def load_pairs(
    table: tl.tensor, position: tl.tensor, pair: tl.tensor, length: tl.tensor, M: tl.constexpr
) -> tl.tensor:
    """Entries of a table (length, M) from `reach`: output · K + tap, −1 where there is none."""
    return tl.load(table + position * M + pair, mask=(position < length) & (pair < M), other=-1)
