"""y[i, c] = Σ_t F[i, g, t] · v[n(i, t), c] on the tensor cores of a GPU: see `matrix`."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ablate.kernels._triton.launch import Launch
from ablate.kernels._triton.matrix import matrix_launch
from ablate.kernels._triton.residues import first_step, locate_class, steps_of
from ablate.kernels.geometry import Neighborhood


def launch_aggregate_matrix(
    values: Tensor, filters: Tensor, neighborhood: Neighborhood
) -> tuple[Launch, Tensor]:
    """The call that computes `aggregate` at stride 1, and the tensor that it fills."""
    out = values.new_empty(values.shape)
    tensors = {"values": values, "filters": filters, "out": out}
    heads = filters.shape[3]
    launch = matrix_launch(aggregate_matrix_kernel, tensors, heads, neighborhood, split_heads=True)
    return launch, out


@triton.jit(do_not_specialize=["height", "width", "heads"])
def aggregate_matrix_kernel(
    values: tl.tensor,
    filters: tl.tensor,
    out: tl.tensor,
    height: int,
    width: int,
    heads: int,
    K: tl.constexpr,
    DILATION: tl.constexpr,
    BORDER: tl.constexpr,
    HEAD_WIDTH: tl.constexpr,
    SIDE: tl.constexpr,
    SPAN: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """One tile of outputs: a row of neighbors at a time, filters × values on the tensor cores.

    Swin-T at batch 64, K = 7, bfloat16: stage 1 (56 × 56 × 96, 3 heads) moves 136 MB, stage 3
    (14 × 14 × 384, 12 heads) 34 MB, 41 and 10 µs on an H100. Laid out as matrices the 1.9 and 0.47
    GFLOP become 8.6 and 2.0, 9 and 2 µs of its tensor cores: memory is the ceiling. A row takes 145
    instructions per thread for 16 × 64 filters and 16 × 32 values: 101 and 25 µs to issue, so that
    40 % of the ceiling is what to expect in both, where the taps form takes 185 and 60 µs.
    """
    PARTS: tl.constexpr = (HEAD_WIDTH + CHANNELS - 1) // CHANNELS
    image, residue_row, residue_column, tile_row, tile_column, part = locate_class(
        height, width, heads * PARTS, DILATION, SIDE, SIDE
    )
    head = part // PARTS
    channel = part % PARTS * CHANNELS + tl.arange(0, CHANNELS)
    line = heads * HEAD_WIDTH
    values += image * height * width * line + head * HEAD_WIDTH
    out += image * height * width * line + head * HEAD_WIDTH
    filters += image * height * width * heads * (K * K) + head * (K * K)
    rows = steps_of(height, residue_row, DILATION)
    columns = steps_of(width, residue_column, DILATION)
    row = tile_row + tl.arange(0, SIDE * SIDE) // SIDE  # (P,)
    column = tile_column + tl.arange(0, SIDE * SIDE) % SIDE
    within = (row < rows) & (column < columns)
    place = (residue_row + row * DILATION) * width + residue_column + column * DILATION
    first_row = first_step(row, rows, K, BORDER)
    first_column = first_step(column, columns, K, BORDER)
    met = first_step(tile_column, columns, K, BORDER) + tl.arange(0, SPAN)  # (SPAN,)
    tap = met[None, :] - first_column[:, None]  # (P, SPAN)
    filter_at = place[:, None] * heads * (K * K) - first_row[:, None] * K + tap
    filter_real = within[:, None] & (tap >= 0) & (tap < K)
    value_at = (residue_column + met * DILATION)[:, None] * line + channel[None, :]
    value_real = ((met >= 0) & (met < columns))[:, None] & (channel < HEAD_WIDTH)[None, :]
    total = tl.zeros((SIDE * SIDE, CHANNELS), tl.float32)
    top = tl.maximum(first_step(tile_row, rows, K, BORDER), 0)
    bottom = tl.minimum(first_step(tl.minimum(tile_row + SIDE, rows) - 1, rows, K, BORDER) + K, rows)
    for met_row in tl.range(top, bottom):
        tap_real = (met_row >= first_row) & (met_row < first_row + K)
        weight = tl.load(filters + (filter_at + met_row * K), mask=filter_real & tap_real[:, None], other=0.0)
        value = tl.load(
            values + ((residue_row + met_row * DILATION) * width * line + value_at),
            mask=value_real,
            other=0.0,
        )
        total = tl.dot(weight, value, total)
    tl.store(
        out + (place[:, None] * line + channel[None, :]),
        total.to(out.dtype.element_ty),
        mask=within[:, None] & (channel < HEAD_WIDTH)[None, :],
    )
