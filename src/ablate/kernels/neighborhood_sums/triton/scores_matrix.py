"""s[i, g, t] = Σ_c q[i, c] · k[n(i, t), c] + b[g, o(i, t)] on the tensor cores of a GPU: see `matrix`."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ablate.kernels._triton.factors import first_offset
from ablate.kernels._triton.launch import Launch
from ablate.kernels._triton.matrix import matrix_launch
from ablate.kernels._triton.residues import first_step, load_channels, locate_class, steps_of
from ablate.kernels.geometry import Neighborhood


def launch_scores_matrix(
    query: Tensor, key: Tensor, bias: Tensor | None, heads: int, neighborhood: Neighborhood
) -> tuple[Launch, Tensor]:
    """The call that computes `scores` at stride 1, and the tensor that it fills."""
    out = query.new_empty(*query.shape[:3], heads, neighborhood.taps)
    tensors = {"query": query, "key": key, "bias": bias, "out": out}
    return matrix_launch(scores_matrix_kernel, tensors, heads, neighborhood), out


@triton.jit(do_not_specialize=["height", "width", "heads"])
def scores_matrix_kernel(
    query: tl.tensor,
    key: tl.tensor,
    bias: tl.tensor,
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
    """One tile of queries: a row of keys at a time, queries × keys on the tensor cores.

    Swin-T at batch 64, K = 7, bfloat16: stage 1 (56 × 56 × 96, 3 heads) moves 136 MB, stage 3
    (14 × 14 × 384, 12 heads) 34 MB: 41 and 10 µs on an H100. All pairs of a tile and its keys are
    8.6 and 2.0 GFLOP, 9 and 2 µs of its tensor cores: memory is the ceiling. A row takes about 165
    instructions per thread, most of them to store what is a tap: expect 35 % of the ceiling.
    """
    image, residue_row, residue_column, tile_row, tile_column, head = locate_class(
        height, width, heads, DILATION, SIDE, SIDE
    )
    line = heads * HEAD_WIDTH
    query += image * height * width * line + head * HEAD_WIDTH
    key += image * height * width * line + head * HEAD_WIDTH
    out += image * height * width * heads * (K * K) + head * (K * K)
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
    out_at = place[:, None] * heads * (K * K) - first_row[:, None] * K + tap
    out_real = within[:, None] & (tap >= 0) & (tap < K)
    met_real = (met >= 0) & (met < columns)
    OFFSETS: tl.constexpr = 2 * K - 1 if BORDER == "inside" else K
    offset_row = first_offset(row, first_row, K, 1, BORDER) - first_row  # of the map's row 0
    offset = first_offset(column, first_column, K, 1, BORDER)[:, None] + tap
    top = first_step(tile_row, rows, K, BORDER)
    bottom = first_step(tl.minimum(tile_row + SIDE, rows) - 1, rows, K, BORDER) + K
    WHOLE: tl.constexpr = HEAD_WIDTH <= CHANNELS
    if WHOLE:
        q = load_channels(query, place * line, within, 0, HEAD_WIDTH, CHANNELS)
    for met_row in tl.range(top, bottom):  # also outside the map, where the scores are zero
        row_real = (met_row >= 0) & (met_row < rows)
        key_at = (residue_row + met_row * DILATION) * width + residue_column + met * DILATION
        score = tl.zeros((SIDE * SIDE, SPAN), tl.float32)
        for part in tl.range(0, HEAD_WIDTH, CHANNELS):
            if not WHOLE:
                q = load_channels(query, place * line, within, part, HEAD_WIDTH, CHANNELS)
            k = load_channels(key, key_at * line, met_real & row_real, part, HEAD_WIDTH, CHANNELS)
            score = tl.dot(q, tl.trans(k), score)
        tap_real = (met_row >= first_row) & (met_row < first_row + K)
        real = out_real & tap_real[:, None]
        if bias is not None:
            bias_at = head * (OFFSETS * OFFSETS) + (offset_row + met_row)[:, None] * OFFSETS + offset
            score += tl.load(bias + bias_at, mask=real, other=0.0).to(tl.float32)
        tl.store(out + (out_at + met_row * K), score.to(out.dtype.element_ty), mask=real)
