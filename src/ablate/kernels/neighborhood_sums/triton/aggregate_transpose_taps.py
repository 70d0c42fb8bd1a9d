"""v[j, c] = Σ_{i, t: n(i, t) = j} (F[i, g, t] · m[c, o] + a[c, o]) · y[i, c] with o = o(i, t), on a GPU."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ablate.kernels._triton import factors
from ablate.kernels._triton.factors import filtered, of_image, taps_held
from ablate.kernels._triton.launch import Launch
from ablate.kernels._triton.neighbors import locate
from ablate.kernels._triton.reach import reach
from ablate.kernels._triton.tiles import Tile
from ablate.kernels.geometry import Neighborhood, offsets_per_axis

TAPS = 8  # of a row at a time: where neighborhoods crowd at the border, only tiles there take more


def launch_aggregate_transpose_taps(
    outputs: Tensor,
    filters: Tensor,
    multiply: Tensor | None,
    add: Tensor | None,
    height: int,
    width: int,
    neighborhood: Neighborhood,
) -> tuple[Launch, Tensor]:
    """The call that computes the sum, and the tensor that it fills."""
    kernel, dilation, border, stride = neighborhood
    batch, rows, columns, channels = outputs.shape
    heads = filters.shape[3]
    head_width = channels // heads
    row_reach = reach(height, neighborhood, outputs.device)
    column_reach = reach(width, neighborhood, outputs.device)
    across = column_reach.shape[1]
    tile = Tile.of(
        height, width, taps_held(min(across, TAPS), multiply, add), heads, head_width, outputs.itemsize
    )
    out = outputs.new_empty(batch, height, width, channels)
    launch = Launch(
        aggregate_transpose_taps_kernel,
        tile.programs(batch, height, width, tile.parts(heads, head_width)),
        {
            "outputs": outputs,
            "filters": filters,
            **factors.arguments(multiply=multiply, add=add),
            "out": out,
            "row_reach": row_reach,
            "column_reach": column_reach,
            "height": height,
            "width": width,
            "rows": rows,
            "columns": columns,
            "heads": heads,
            "dilation": dilation,
            "stride": stride,
        },
        {
            "K": kernel,
            "OFFSETS": offsets_per_axis(kernel, border),
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


@triton.jit(
    do_not_specialize=[
        "multiply_apart",
        "add_apart",
        "height",
        "width",
        "rows",
        "columns",
        "heads",
        "dilation",
        "stride",
    ]
)
def aggregate_transpose_taps_kernel(
    outputs: tl.tensor,
    filters: tl.tensor,
    multiply: tl.tensor,
    multiply_apart: int,
    add: tl.tensor,
    add_apart: int,
    out: tl.tensor,
    row_reach: tl.tensor,
    column_reach: tl.tensor,
    height: int,
    width: int,
    rows: int,
    columns: int,
    heads: int,
    dilation: int,
    stride: int,
    K: tl.constexpr,
    OFFSETS: tl.constexpr,
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
    products per thread: expect 35 % and 25 % of that bound. With both static factors (ELSA) it takes 347,
    438 and 143 µs: 18 % and 14 %.
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
    if multiply is not None:
        multiply = of_image(multiply, image, multiply_apart, line * (OFFSETS * OFFSETS))
    if add is not None:
        add = of_image(add, image, add_apart, line * (OFFSETS * OFFSETS))
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
        column_offset = offset_of(met, column[None, :], dilation, stride, K, OFFSETS)
        factor_at = (column_offset * line)[:, :, None, None] + of_map
        for tap_row in tl.range(0, down):
            met_row = load_pairs(row_reach, row, tap_row, height, DOWN)  # (P,)
            row_at = met_row // K * columns
            met_real = output_real & (met_row >= 0)[:, None, None]
            output = tl.load(
                outputs + ((row_at * line)[:, None, None] + output_at),
                mask=met_real,
                other=0.0,
            )
            weight = tl.load(
                filters + ((row_at * heads * (K * K) + met_row % K * K)[:, None, None] + filter_at),
                mask=filter_real & (met_row >= 0)[:, None, None],
                other=0.0,
            )
            weight = tl.permute(weight, (2, 0, 1))
            row_offset = offset_of(met_row, row, dilation, stride, K, OFFSETS)
            at = (row_offset * (OFFSETS * line))[:, None, None] + factor_at
            weight = filtered(weight[:, :, :, None], multiply, add, at, met_real)
            total += tl.sum(weight * output.to(tl.float32), axis=0)
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


@triton.jit
def offset_of(
    pair: tl.tensor,
    position: tl.tensor,
    dilation: tl.tensor,
    stride: tl.tensor,
    K: tl.constexpr,
    OFFSETS: tl.constexpr,
) -> tl.tensor:
    """The relative offset of a position to the output that reads it: the tap, unless taps move inside."""
    if OFFSETS > K:
        return position // dilation - pair // K * stride // dilation + K - 1
    else:
        return pair % K
