"""Gradient of fused neighborhood attention with respect to its queries."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ablate.kernels._triton.launch import Launch
from ablate.kernels._triton.matrix import WARPS, MatrixTile, precision, stages
from ablate.kernels._triton.residues import first_step, load_channels, locate_class, steps_of
from ablate.kernels.geometry import Neighborhood
from ablate.kernels.neighborhood_attention.inputs import Inputs
from ablate.kernels.neighborhood_attention.triton.forward import (
    LOG2_E,
    axial_entry,
    axial_of,
    load_axial,
    load_bias,
)


def launch_query_gradient(
    grad: Tensor,
    inputs: Inputs,
    out: Tensor,
    logsumexp: Tensor,
    neighborhood: Neighborhood,
) -> tuple[Launch, Tensor, Tensor, Tensor | None]:
    """The call, and what it fills: the gradient, the sum of grad · out per head (B, G, H, W), and axial's."""
    kernel, dilation, border, _ = neighborhood
    batch, height, width, channels = inputs.query.shape
    heads = inputs.heads
    head_width = channels // heads
    tile = MatrixTile.of(batch, height, width, kernel, dilation, heads, head_width)
    grad_query, product = inputs.query.new_empty(inputs.query.shape), logsumexp.new_empty(logsumexp.shape)
    axial, grad_axial = inputs.axial, None
    if axial is not None:  # where not every query meets every offset, the others keep 0
        grad_axial = (axial.new_empty if border == "zero" else axial.new_zeros)(axial.shape)
    launch = Launch(
        query_gradient_kernel,
        tile.programs,
        {
            "grad": grad,
            **inputs._asdict(),
            "out": out,
            "logsumexp": logsumexp,
            "product": product,
            "grad_query": grad_query,
            "grad_axial": grad_axial,
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
        2 * WARPS if inputs.query.dtype == torch.float32 else WARPS,  # operands in parts take more registers
        stages(inputs.query.dtype),
    )
    return launch, grad_query, product, grad_axial


@triton.jit(do_not_specialize=["height", "width", "heads"])
def query_gradient_kernel(
    grad: tl.tensor,
    query: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    bias: tl.tensor,
    axial: tl.tensor,
    out: tl.tensor,
    logsumexp: tl.tensor,
    product: tl.tensor,
    grad_query: tl.tensor,
    grad_axial: tl.tensor,
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
    """One tile of queries: a row of keys at a time, weights computed again from the forward pass's sums.

    With p = exp(score − logsumexp) and s_t = p_t (g_i·v_t − g_i·y_i): dq_i = Σ_t s_t k_t. Writes g·y
    for the other gradients. That of axial is Σ_t s_t over the taps at one offset: a row's sum is done
    with the row, those of columns add up in registers. Taps outside the map have s_t ≠ 0 where they
    count, so that with axial their rows are covered too.

    Swin-T at batch 64, K = 7, bfloat16: stage 1 moves 236 MB, stage 3 59 MB: 70 and 18 µs on an
    H100, 26 and 6 µs of its tensor cores: memory is the ceiling. A row takes 260 instructions per
    thread, 181 and 45 µs to issue: expect 39 %. Axial and its gradient add 90 MB to the 167 MB of
    SASA-ResNet's stage 1.
    """
    image, residue_row, residue_column, tile_row, tile_column, head = locate_class(
        height, width, heads, DILATION, SIDE, SIDE
    )
    line = heads * HEAD_WIDTH
    of_head = image * height * width * line + head * HEAD_WIDTH
    rows = steps_of(height, residue_row, DILATION)
    columns = steps_of(width, residue_column, DILATION)
    row = tile_row + tl.arange(0, SIDE * SIDE) // SIDE  # (P,)
    column = tile_column + tl.arange(0, SIDE * SIDE) % SIDE
    within = (row < rows) & (column < columns)
    place = (residue_row + row * DILATION) * width + residue_column + column * DILATION
    of_map = (image * heads + head) * height * width + place
    first_row = first_step(row, rows, K, BORDER)
    met = first_step(tile_column, columns, K, BORDER) + tl.arange(0, SPAN)  # (SPAN,)
    tap = met[None, :] - first_step(column, columns, K, BORDER)[:, None]  # (P, SPAN)
    # keys outside the map are zero: they count, but give nothing to the gradient of the queries
    OUTSIDE: tl.constexpr = axial is not None and BORDER == "zero"
    counts = (((met >= 0) & (met < columns)) | OUTSIDE)[None, :] & (tap >= 0) & (tap < K)
    q = load_channels(query + of_head, place * line, within, 0, HEAD_WIDTH, CHANNELS)
    g = load_channels(grad + of_head, place * line, within, 0, HEAD_WIDTH, CHANNELS)
    y = load_channels(out + of_head, place * line, within, 0, HEAD_WIDTH, CHANNELS)
    along = tl.sum(g.to(tl.float32) * y.to(tl.float32), axis=1)  # (P,)
    tl.store(product + of_map, along, mask=within)
    normal = tl.load(logsumexp + of_map, mask=within, other=0.0) * LOG2_E
    total = tl.zeros((SIDE * SIDE, CHANNELS), tl.float32)
    top = first_step(tile_row, rows, K, BORDER)
    if not OUTSIDE:
        top = tl.maximum(top, 0)
    bottom = first_step(tl.minimum(tile_row + SIDE, rows) - 1, rows, K, BORDER) + K
    if not OUTSIDE:
        bottom = tl.minimum(bottom, rows)
    if axial is not None:
        axial = axial_of(axial, image, height * width, head, heads, K, BORDER)
        grad_axial = axial_of(grad_axial, image, height * width, head, heads, K, BORDER)
        of_query = place * heads
        apart = met[None, :] - column[:, None]
        column_stored = within[:, None] & counts
        by_column = load_axial(axial, of_query[:, None], apart, column_stored, 1, K, BORDER)
        of_columns = tl.zeros((SIDE * SIDE, SPAN), tl.float32)
    for met_row in tl.range(top, bottom):
        met_at = ((residue_row + met_row * DILATION) * width + residue_column + met * DILATION) * line
        met_real = (met >= 0) & (met < columns)
        if OUTSIDE:
            met_real = met_real & (met_row >= 0) & (met_row < rows)
        k = load_channels(key + of_head, met_at, met_real, 0, HEAD_WIDTH, CHANNELS)
        v = load_channels(value + of_head, met_at, met_real, 0, HEAD_WIDTH, CHANNELS)
        row_counts = (met_row >= first_row) & (met_row < first_row + K)
        counts_here = counts & row_counts[:, None]
        score = tl.dot(q, tl.trans(k), input_precision=PRECISION) * LOG2_E
        down, across = met_row - row, met[None, :] - column[:, None]
        score += LOG2_E * load_bias(bias, head, down[:, None], across, counts_here, K, BORDER)
        if axial is not None:
            by_row = load_axial(axial, of_query, down, within & row_counts, 0, K, BORDER)
            score += LOG2_E * (by_column + by_row[:, None])
        weight = tl.where(counts_here, tl.exp2(score - normal[:, None]), 0.0)
        slope = weight * (tl.dot(g, tl.trans(v), input_precision=PRECISION) - along[:, None])
        total = tl.dot(slope.to(k.dtype), k, total, input_precision=PRECISION)
        if axial is not None:
            of_columns += slope
            tl.store(
                grad_axial + axial_entry(of_query, down, 0, K, BORDER),
                tl.sum(slope, axis=1).to(grad_axial.dtype.element_ty),
                mask=within & row_counts,
            )
    channel = tl.arange(0, CHANNELS)
    tl.store(
        grad_query + of_head + (place[:, None] * line + channel[None, :]),
        total.to(grad_query.dtype.element_ty),
        mask=within[:, None] & (channel < HEAD_WIDTH)[None, :],
    )
    if axial is not None:
        tl.store(
            grad_axial + axial_entry(of_query[:, None], apart, 1, K, BORDER),
            of_columns.to(grad_axial.dtype.element_ty),
            mask=column_stored,
        )
