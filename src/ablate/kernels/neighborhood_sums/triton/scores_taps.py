"""s[i, g, t] = Σ_c (m[c, o(i, t)] · q[i, c] + a[c, o(i, t)]) · k[n(i, t), c] + b[g, o(i, t)], on a GPU."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ablate.kernels._triton import factors
from ablate.kernels._triton.factors import filtered, first_offset, of_image, taps_held
from ablate.kernels._triton.launch import Launch, border_rule
from ablate.kernels._triton.neighbors import first_neighbor, locate, mirrored
from ablate.kernels._triton.tiles import Tile
from ablate.kernels.geometry import Neighborhood


def launch_scores_taps(
    query: Tensor,
    key: Tensor,
    multiply: Tensor | None,
    add: Tensor | None,
    bias: Tensor | None,
    heads: int,
    neighborhood: Neighborhood,
) -> tuple[Launch, Tensor]:
    """The call that computes the sum, and the tensor that it fills."""
    kernel, dilation, _, stride = neighborhood
    batch, rows, columns, channels = query.shape
    height, width, head_width = *key.shape[1:3], channels // heads
    tile = Tile.of(rows, columns, taps_held(kernel, multiply, add), heads, head_width, query.itemsize)
    out = query.new_empty(batch, rows, columns, heads, kernel * kernel)
    launch = Launch(
        scores_taps_kernel,
        tile.programs(batch, rows, columns, tile.parts(heads, tile.channels)),
        {
            "query": query,
            "key": key,
            **factors.arguments(multiply=multiply, add=add),
            "bias": bias,
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
def scores_taps_kernel(
    query: tl.tensor,
    key: tl.tensor,
    multiply: tl.tensor,
    multiply_apart: int,
    add: tl.tensor,
    add_apart: int,
    bias: tl.tensor,
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
    """One tile of queries: all taps of a row at a time, rows of the neighborhood in a loop.

    Swin-T at batch 64, K = 7, float32: stage 1 (56 × 56 × 96, 3 heads) reads 154 MB, writes 118 MB
    and does 1.9 GFLOP; stage 3 (14 × 14 × 384, 12 heads) reads 39 MB, writes 30 MB, 0.47 GFLOP. On
    an H100 memory is the ceiling, 81 and 20 µs. A row of 8 taps takes 184 instructions for 32
    products per thread, 72 of them to add up across 8 threads: expect 32 % and 22 % of the ceiling. With
    a static factor (ELSA's gradient) it takes 289, 383 and 125 µs: 21 % and 16 %.
    """
    # one program sums over all channels of its heads: CHANNELS is the head's width here
    image, row, column, head, channel = locate(rows, columns, heads, CHANNELS, ROWS, COLUMNS, HEADS, CHANNELS)
    within = (row < rows) & (column < columns)  # (P,)
    line = heads * HEAD_WIDTH
    query += image * rows * columns * line
    key += image * height * width * line
    out += image * rows * columns * heads * (K * K)
    place = row * columns + column
    first_row = first_neighbor(row * STRIDE, height, K, DILATION, BORDER)
    first_column = first_neighbor(column * STRIDE, width, K, DILATION, BORDER)
    OFFSETS: tl.constexpr = 2 * K - 1 if BORDER == "inside" else K
    offset = first_offset(row * STRIDE, first_row, K, DILATION, BORDER) * OFFSETS
    offset += first_offset(column * STRIDE, first_column, K, DILATION, BORDER)
    if multiply is not None:
        multiply = of_image(multiply, image, multiply_apart, line * (OFFSETS * OFFSETS))
    if add is not None:
        add = of_image(add, image, add_apart, line * (OFFSETS * OFFSETS))
    for start in tl.static_range(0, K, TAPS):
        tap = start + tl.arange(0, TAPS)
        met = mirrored(first_column[None, :] + tap[:, None] * DILATION, width, BORDER)  # (TAPS, P)
        counts = within[None, :] & (tap < K)[:, None]
        met_real = counts & (met >= 0) & (met < width)
        offset_at = (offset[None, :] + tap[:, None]) * line  # (TAPS, P)
        for tap_row in tl.range(0, K):
            met_row = mirrored(first_row + tap_row * DILATION, height, BORDER)
            row_real = (met_row >= 0) & (met_row < height)
            key_at = (met_row * width + met) * line
            key_real = met_real & row_real
            offset_here = offset_at + tap_row * (OFFSETS * line)
            products = tl.zeros((TAPS, ROWS * COLUMNS, HEADS, CHANNELS), tl.float32)
            for part in tl.range(0, HEAD_WIDTH, CHANNELS):
                real = (head < heads)[:, None] & (part + channel < HEAD_WIDTH)[None, :]
                of_map = head[:, None] * HEAD_WIDTH + part + channel[None, :]
                q = tl.load(
                    query + ((place * line)[:, None, None] + of_map),
                    mask=within[:, None, None] & real,
                    other=0.0,
                )
                k = tl.load(
                    key + (key_at[:, :, None, None] + of_map),
                    mask=key_real[:, :, None, None] & real,
                    other=0.0,
                )
                factor_at = offset_here[:, :, None, None] + of_map
                q = filtered(q, multiply, add, factor_at, key_real[:, :, None, None] & real)
                products += q * k.to(tl.float32)
            score = tl.sum(products, axis=3)  # (TAPS, P, HEADS)
            stored = counts[:, :, None] & (head < heads)
            if bias is not None:
                bias_at = (offset[None, :] + tap[:, None] + tap_row * OFFSETS)[:, :, None]
                bias_at += head * (OFFSETS * OFFSETS)
                score += tl.load(bias + bias_at, mask=stored, other=0.0).to(tl.float32)
            at = (place[:, None] * heads + head) * (K * K) + tap_row * K + tap[:, None, None]
            tl.store(out + at, score.to(out.dtype.element_ty), mask=stored)
