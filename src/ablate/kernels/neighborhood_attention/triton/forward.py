"""Fused neighborhood attention: softmax of scores and sum of values without the K² map in memory."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ablate.kernels._triton.launch import Launch, border_rule
from ablate.kernels._triton.matrix import WARPS, MatrixTile, precision, stages
from ablate.kernels._triton.residues import first_step, load_channels, locate_class, steps_of
from ablate.kernels.geometry import Neighborhood
from ablate.kernels.neighborhood_attention.inputs import Inputs

LOG2_E = tl.constexpr(1.4426950408889634)
LEAST = tl.constexpr(-1e30)  # below every score; a difference of two of them is 0 and not NaN


def launch_attention(
    inputs: Inputs,
    neighborhood: Neighborhood,
) -> tuple[Launch, Tensor, Tensor]:
    """The call that computes the attention, and the two tensors that it fills."""
    kernel, dilation, border, _ = neighborhood
    batch, height, width, channels = inputs.query.shape
    heads = inputs.heads
    head_width = channels // heads
    tile = MatrixTile.of(batch, height, width, kernel, dilation, heads, head_width)
    border_rule(height, width, neighborhood)
    out = inputs.query.new_empty(inputs.query.shape)
    logsumexp = inputs.query.new_empty(batch, heads, height, width, dtype=torch.float32)
    launch = Launch(
        attention_forward_kernel,
        tile.programs,
        {
            **inputs._asdict(),
            "out": out,
            "logsumexp": logsumexp,
            "height": height,
            "width": width,
            "heads": heads,
        },
        {
            "K": kernel,
            "DILATION": dilation,
            "BORDER": border,
            "HEAD_WIDTH": head_width,
            "PRECISION": precision(inputs.query.dtype),
            **tile.constants(),
        },
        WARPS,
        stages(inputs.query.dtype),
    )
    return launch, out, logsumexp


@triton.jit(do_not_specialize=["height", "width", "heads"])
def attention_forward_kernel(
    query: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    bias: tl.tensor,
    axial: tl.tensor,
    out: tl.tensor,
    logsumexp: tl.tensor,
    height: int,
    width: int,
    heads: int,
    K: tl.constexpr,
    DILATION: tl.constexpr,
    BORDER: tl.constexpr,
    HEAD_WIDTH: tl.constexpr,
    PRECISION: tl.constexpr,
    SIDE: tl.constexpr,
    SPAN: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """One tile of queries: a row of keys at a time, its softmax rescaled as larger scores appear.

    A score is q_i·k_j + bias[offset], and with `axial` (B, H, W, G, 2 · offsets per axis) also what
    the query has for the offset in rows and for that in columns. The latter is the same in every row.

    Swin-T at batch 64, K = 7, bfloat16: stage 1 (56 × 56 × 96, 3 heads) moves 157 MB, stage 3
    (14 × 14 × 384, 12 heads) 39 MB: 47 and 12 µs on an H100. The 3.8 and 0.94 GFLOP become 17 and 4
    as matrices, 17 and 4 µs of its tensor cores: memory is the ceiling. A row takes 288 instructions
    per thread, 196 and 49 µs to issue: expect 24 %. In float32 (products of three parts each) it is
    93 and 23 µs of memory and 553 instructions per row: 27 %. The weights would be 118 and 30 MB.
    SASA-ResNet's stage 1 (56 × 56 × 64, 8 heads) moves 154 MB, 45 MB of them axial.
    """
    image, residue_row, residue_column, tile_row, tile_column, head = locate_class(
        height, width, heads, DILATION, SIDE, SIDE
    )
    line = heads * HEAD_WIDTH
    query += image * height * width * line + head * HEAD_WIDTH
    key += image * height * width * line + head * HEAD_WIDTH
    value += image * height * width * line + head * HEAD_WIDTH
    out += image * height * width * line + head * HEAD_WIDTH
    logsumexp += (image * heads + head) * height * width
    rows = steps_of(height, residue_row, DILATION)
    columns = steps_of(width, residue_column, DILATION)
    row = tile_row + tl.arange(0, SIDE * SIDE) // SIDE  # (P,)
    column = tile_column + tl.arange(0, SIDE * SIDE) % SIDE
    within = (row < rows) & (column < columns)
    place = (residue_row + row * DILATION) * width + residue_column + column * DILATION
    first_row = first_step(row, rows, K, BORDER)
    met = first_step(tile_column, columns, K, BORDER) + tl.arange(0, SPAN)  # (SPAN,)
    tap = met[None, :] - first_step(column, columns, K, BORDER)[:, None]  # (P, SPAN)
    met_real = (met >= 0) & (met < columns)
    counts = (tap >= 0) & (tap < K)
    if BORDER == "mask":
        counts = counts & met_real[None, :]
    q = load_channels(query, place * line, within, 0, HEAD_WIDTH, CHANNELS)
    if axial is not None:
        axial = axial_of(axial, image, height * width, head, heads, K, BORDER)
        of_query = place * heads
        by_column = load_axial(
            axial, of_query[:, None], met[None, :] - column[:, None], within[:, None] & counts, 1, K, BORDER
        )
    largest = tl.full((SIDE * SIDE,), LEAST, tl.float32)
    total = tl.zeros((SIDE * SIDE,), tl.float32)
    weighted = tl.zeros((SIDE * SIDE, CHANNELS), tl.float32)
    top = first_step(tile_row, rows, K, BORDER)
    bottom = first_step(tl.minimum(tile_row + SIDE, rows) - 1, rows, K, BORDER) + K
    if BORDER != "zero":  # rows outside the map count nowhere
        top = tl.maximum(top, 0)
        bottom = tl.minimum(bottom, rows)
    for met_row in tl.range(top, bottom):
        row_real = (met_row >= 0) & (met_row < rows)
        met_at = ((residue_row + met_row * DILATION) * width + residue_column + met * DILATION) * line
        k = load_channels(key, met_at, met_real & row_real, 0, HEAD_WIDTH, CHANNELS)
        v = load_channels(value, met_at, met_real & row_real, 0, HEAD_WIDTH, CHANNELS)
        row_counts = (met_row >= first_row) & (met_row < first_row + K)
        counts_here = counts & row_counts[:, None]
        score = tl.dot(q, tl.trans(k), input_precision=PRECISION) * LOG2_E
        down, across = met_row - row, met[None, :] - column[:, None]
        score += LOG2_E * load_bias(bias, head, down[:, None], across, counts_here, K, BORDER)
        if axial is not None:
            by_row = load_axial(axial, of_query, down, within & row_counts, 0, K, BORDER)
            score += LOG2_E * (by_column + by_row[:, None])
        score = tl.where(counts_here, score, -float("inf"))
        larger = tl.maximum(largest, tl.max(score, axis=1))
        weight = tl.exp2(score - larger[:, None])
        rescale = tl.exp2(largest - larger)
        total = total * rescale + tl.sum(weight, axis=1)
        weighted = weighted * rescale[:, None]
        weighted = tl.dot(weight.to(v.dtype), v, weighted, input_precision=PRECISION)
        largest = larger
    channel = tl.arange(0, CHANNELS)
    tl.store(
        out + (place[:, None] * line + channel[None, :]),
        (weighted / total[:, None]).to(out.dtype.element_ty),
        mask=within[:, None] & (channel < HEAD_WIDTH)[None, :],
    )
    tl.store(logsumexp + place, (largest + tl.log2(total)) / LOG2_E, mask=within)


@triton.jit
def load_bias(
    bias: tl.tensor,
    head: tl.tensor,
    down: tl.tensor,
    across: tl.tensor,
    real: tl.tensor,
    K: tl.constexpr,
    BORDER: tl.constexpr,
) -> tl.tensor:
    """Entries of the table (G, offsets²) at offsets from query to key in steps, in float32."""
    MOST: tl.constexpr = K - 1 if BORDER == "inside" else K // 2  # offsets are −MOST … MOST
    SIZE: tl.constexpr = 2 * MOST + 1
    at = head * (SIZE * SIZE) + (down + MOST) * SIZE + across + MOST
    return tl.load(bias + at, mask=real, other=0.0).to(tl.float32)


@triton.jit
def axial_of(
    axial: tl.tensor,
    image: tl.tensor,
    positions: tl.tensor,
    head: tl.tensor,
    heads: tl.tensor,
    K: tl.constexpr,
    BORDER: tl.constexpr,
) -> tl.tensor:
    """One image's and head's part of (B, H, W, G, 2 · offsets per axis)."""
    SIZE: tl.constexpr = 2 * K - 1 if BORDER == "inside" else K
    return axial + (image * positions * heads + head) * (2 * SIZE)


@triton.jit
def axial_entry(
    of_query: tl.tensor, step: tl.tensor, AXIS: tl.constexpr, K: tl.constexpr, BORDER: tl.constexpr
) -> tl.tensor:
    """Index of a query's entry for an offset in steps; `of_query` is its position times the heads.

    `AXIS` is 0 for the offset in rows and 1 for that in columns.
    """
    MOST: tl.constexpr = K - 1 if BORDER == "inside" else K // 2
    SIZE: tl.constexpr = 2 * MOST + 1
    return of_query * (2 * SIZE) + (AXIS * SIZE + MOST) + step


@triton.jit
def load_axial(
    axial: tl.tensor,
    of_query: tl.tensor,
    step: tl.tensor,
    real: tl.tensor,
    AXIS: tl.constexpr,
    K: tl.constexpr,
    BORDER: tl.constexpr,
) -> tl.tensor:
    """Load what queries add to the logits of keys at offsets along one axis, in float32."""
    at = axial_entry(of_query, step, AXIS, K, BORDER)
    return tl.load(axial + at, mask=real, other=0.0).to(tl.float32)
