"""y[i, c] = Σ_t (F[i, g, t] · m[c, o] + a[c, o]) · v[n(i, t), c] with o = o(i, t), on a GPU."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ablate.kernels._triton import factors
from ablate.kernels._triton.factors import filtered, first_offset, of_image, taps_held
from ablate.kernels._triton.launch import Launch, border_rule
from ablate.kernels._triton.neighbors import first_neighbor, locate, mirrored
from ablate.kernels._triton.tiles import Tile
from ablate.kernels.geometry import Neighborhood, strided


def launch_aggregate_taps(
    values: Tensor,
    filters: Tensor,
    multiply: Tensor | None,
    add: Tensor | None,
    neighborhood: Neighborhood,
) -> tuple[Launch, Tensor]:
    """The call that computes the sum, and the tensor that it fills."""
    kernel, dilation, _, stride = neighborhood
    batch, height, width, channels = values.shape
    rows, columns, heads = strided(height, stride), strided(width, stride), filters.shape[3]
    head_width = channels // heads
    tile = Tile.of(rows, columns, taps_held(kernel, multiply, add), heads, head_width, values.itemsize)
    out = values.new_empty(batch, rows, columns, channels)
    launch = Launch(
        aggregate_taps_kernel,
        tile.programs(batch, rows, columns, tile.parts(heads, head_width)),
        {
            "values": values,
            "filters": filters,
            **factors.arguments(multiply=multiply, add=add),
            "out": out,
            "height": height,
            "width": width,
            "rows": rows,
            "columns": columns,
            "heads": heads,
        },
        {
            "K": kernel,
            "DILATION": dilation,
            "BORDER": border_rule(height, width, neighborhood),
            "STRIDE": stride,
            "HEAD_WIDTH": head_width,
            **tile.constants(),
        },
        tile.warps,
    )
    return launch, out


@triton.jit(do_not_specialize=["multiply_apart", "add_apart", "height", "width", "rows", "columns", "heads"])
def aggregate_taps_kernel(
    values: tl.tensor,
    filters: tl.tensor,
    multiply: tl.tensor,
    multiply_apart: int,
    add: tl.tensor,
    add_apart: int,
    out: tl.tensor,
    height: int,
    width: int,
    rows: int,
    columns: int,
    heads: int,
    K: tl.constexpr,
    DILATION: tl.constexpr,
    BORDER: tl.constexpr,
    STRIDE: tl.constexpr,
    HEAD_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    TAPS: tl.constexpr,
    HEADS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """One tile of outputs: all taps of a row at a time, rows of the neighborhood in a loop.

    Swin-T at batch 64, K = 7, float32: stage 1 (56 × 56 × 96, 3 heads) reads 195 MB, writes 77 MB
    and does 1.9 GFLOP; stage 3 (14 × 14 × 384, 12 heads) reads 49 MB, writes 19 MB, 0.47 GFLOP. On
    an H100 that is 81 and 20 µs of memory against 28 and 7 µs of arithmetic: memory is the ceiling.
    A row of 7 taps takes 127 instructions for 28 products per thread (sm_90), so that 191 and 63 µs
    are spent issuing them: expect 40 % of the ceiling in stage 1, 30 % in stage 3 (its tiles are a
    quarter empty). Values are read 49 times, from the L1 cache but for the 4.4 times of a tile's rim.

    Static factors, 19 and 75 KB each, come from the caches, as many bytes as the values for every tap
    and position. Both of them (ELSA): 254 instructions for a row, 342 and 112 µs, 24 % and 18 %.
    """
    image, row, column, head, channel = locate(
        rows, columns, heads, HEAD_WIDTH, ROWS, COLUMNS, HEADS, CHANNELS
    )
    within = (row < rows) & (column < columns)  # (P,)
    real = (head < heads)[:, None] & (channel < HEAD_WIDTH)[None, :]  # (HEADS, CHANNELS)
    of_map = head[:, None] * HEAD_WIDTH + channel[None, :]
    line = heads * HEAD_WIDTH
    values += image * height * width * line
    filters += image * rows * columns * heads * (K * K)
    first_row = first_neighbor(row * STRIDE, height, K, DILATION, BORDER)
    first_column = first_neighbor(column * STRIDE, width, K, DILATION, BORDER)
    OFFSETS: tl.constexpr = 2 * K - 1 if BORDER == "inside" else K
    offset = first_offset(row * STRIDE, first_row, K, DILATION, BORDER) * OFFSETS
    offset += first_offset(column * STRIDE, first_column, K, DILATION, BORDER)
    if multiply is not None:
        multiply = of_image(multiply, image, multiply_apart, line * (OFFSETS * OFFSETS))
    if add is not None:
        add = of_image(add, image, add_apart, line * (OFFSETS * OFFSETS))
    total = tl.zeros((ROWS * COLUMNS, HEADS, CHANNELS), tl.float32)
    for start in tl.static_range(0, K, TAPS):
        tap = start + tl.arange(0, TAPS)
        met = mirrored(first_column[None, :] + tap[:, None] * DILATION, width, BORDER)  # (TAPS, P)
        counts = within[None, :] & (tap < K)[:, None]
        value_at = (met * line)[:, :, None, None] + of_map
        value_real = (counts & (met >= 0) & (met < width))[:, :, None, None] & real
        filter_at = ((row * columns + column)[None, :, None] * heads + head) * (K * K) + tap[:, None, None]
        filter_real = counts[:, :, None] & (head < heads)
        factor_real = counts[:, :, None, None] & real
        factor_at = ((offset[None, :] + tap[:, None]) * line)[:, :, None, None] + of_map
        for tap_row in tl.range(0, K):
            met_row = mirrored(first_row + tap_row * DILATION, height, BORDER)
            row_real = (met_row >= 0) & (met_row < height)
            value = tl.load(
                values + ((met_row * width * line)[:, None, None] + value_at),
                mask=value_real & row_real[:, None, None],
                other=0.0,
            )
            weight = tl.load(filters + (filter_at + tap_row * K), mask=filter_real, other=0.0)
            at = factor_at + tap_row * (OFFSETS * line)
            weight = filtered(weight[:, :, :, None], multiply, add, at, factor_real)
            total += tl.sum(weight * value.to(tl.float32), axis=0)
    at = (row * columns + column)[:, None, None] * line + of_map
    out += image * rows * columns * line
    tl.store(out + at, total.to(out.dtype.element_ty), mask=within[:, None, None] & real)
