"""Gradients of fused neighborhood attention with respect to its keys and values."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ablate.kernels._triton.launch import Launch
from ablate.kernels._triton.matrix import WARPS, MatrixTile, precision, stages
from ablate.kernels._triton.residues import (
    first_reader,
    first_step,
    last_reader,
    load_channels,
    locate_class,
    steps_of,
)
from ablate.kernels.geometry import Neighborhood
from ablate.kernels.neighborhood_attention.inputs import Inputs
from ablate.kernels.neighborhood_attention.triton.forward import LOG2_E, axial_of, load_axial, load_bias


def launch_key_gradients(
    grad: Tensor,
    inputs: Inputs,
    logsumexp: Tensor,
    product: Tensor,
    neighborhood: Neighborhood,
) -> tuple[Launch, Tensor, Tensor]:
    """The call, and the gradients of keys and values that it fills."""
    kernel, dilation, border, _ = neighborhood
    batch, height, width, channels = inputs.query.shape
    heads = inputs.heads
    head_width = channels // heads
    tile = MatrixTile.of(batch, height, width, kernel, dilation, heads, head_width)
    grad_key, grad_value = (x.new_empty(x.shape) for x in (inputs.key, inputs.value))
    launch = Launch(
        key_gradients_kernel,
        tile.programs,
        {
            "grad": grad,
            **inputs._asdict(),
            "logsumexp": logsumexp,
            "product": product,
            "grad_key": grad_key,
            "grad_value": grad_value,
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
        2 * WARPS if inputs.axial is not None and inputs.query.dtype == torch.float32 else WARPS,  # no spills
        stages(inputs.query.dtype),
    )
    return launch, grad_key, grad_value


@triton.jit(do_not_specialize=["height", "width", "heads"])
def key_gradients_kernel(
    grad: tl.tensor,
    query: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    bias: tl.tensor,
    axial: tl.tensor,
    logsumexp: tl.tensor,
    product: tl.tensor,
    grad_key: tl.tensor,
    grad_value: tl.tensor,
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
    """One tile of keys: a row of the queries that see them at a time.

    With p = exp(score − logsumexp): dv_j = Σ_i p_ij g_i and dk_j = Σ_i p_ij (g_i·v_j − g_i·y_i) q_i.
    Queries are gathered as `aggregate_transpose` gathers its outputs: no atomics.

    Swin-T at batch 64, K = 7, bfloat16: stage 1 moves 236 MB, stage 3 59 MB: 70 and 18 µs on an
    H100, 35 and 8 µs of its tensor cores: memory is the ceiling. A row takes 284 instructions per
    thread, 195 and 48 µs to issue: expect 36 %. Axial adds 45 MB to the 167 MB of SASA-ResNet's stage 1.
    """
    image, residue_row, residue_column, tile_row, tile_column, head = locate_class(
        height, width, heads, DILATION, SIDE, SIDE
    )
    line = heads * HEAD_WIDTH
    of_head = image * height * width * line + head * HEAD_WIDTH
    logsumexp += (image * heads + head) * height * width
    product += (image * heads + head) * height * width
    rows = steps_of(height, residue_row, DILATION)
    columns = steps_of(width, residue_column, DILATION)
    row = tile_row + tl.arange(0, SIDE * SIDE) // SIDE  # (P,)
    column = tile_column + tl.arange(0, SIDE * SIDE) % SIDE
    within = (row < rows) & (column < columns)
    place = (residue_row + row * DILATION) * width + residue_column + column * DILATION
    k = load_channels(key + of_head, place * line, within, 0, HEAD_WIDTH, CHANNELS)
    v = load_channels(value + of_head, place * line, within, 0, HEAD_WIDTH, CHANNELS)
    top = first_reader(tile_row, K, BORDER)
    bottom = last_reader(tl.minimum(tile_row + SIDE, rows) - 1, rows, K, BORDER)
    left = first_reader(tile_column, K, BORDER)
    right = last_reader(tl.minimum(tile_column + SIDE, columns) - 1, columns, K, BORDER)
    if axial is not None:
        axial = axial_of(axial, image, height * width, head, heads, K, BORDER)
    of_keys = tl.zeros((SIDE * SIDE, CHANNELS), tl.float32)
    of_values = tl.zeros((SIDE * SIDE, CHANNELS), tl.float32)
    for start in tl.range(left, right + 1, SPAN):  # twice only where neighborhoods crowd at a border
        reader = start + tl.arange(0, SPAN)  # (SPAN,)
        real = reader < columns
        tap = column[:, None] - first_step(reader, columns, K, BORDER)[None, :]  # (P, SPAN)
        counts = real[None, :] & (tap >= 0) & (tap < K)
        for reader_row in tl.range(top, bottom + 1):
            reader_at = (residue_row + reader_row * DILATION) * width + residue_column + reader * DILATION
            q = load_channels(query + of_head, reader_at * line, real, 0, HEAD_WIDTH, CHANNELS)
            g = load_channels(grad + of_head, reader_at * line, real, 0, HEAD_WIDTH, CHANNELS)
            normal = tl.load(logsumexp + reader_at, mask=real, other=0.0) * LOG2_E
            along = tl.load(product + reader_at, mask=real, other=0.0)
            first_row = first_step(reader_row, rows, K, BORDER)
            counts_here = counts & ((row >= first_row) & (row < first_row + K))[:, None]
            added = None
            if axial is not None:
                added = added_by_readers(
                    axial,
                    reader_at * heads,
                    reader_row,
                    reader,
                    tile_row,
                    tile_column,
                    rows,
                    columns,
                    K,
                    BORDER,
                    SIDE,
                    SPAN,
                )
            score = tl.dot(k, tl.trans(q), added, input_precision=PRECISION) * LOG2_E  # (P, SPAN)
            down, across = row - reader_row, column[:, None] - reader[None, :]
            score += LOG2_E * load_bias(bias, head, down[:, None], across, counts_here, K, BORDER)
            weight = tl.where(counts_here, tl.exp2(score - normal[None, :]), 0.0)
            of_values = tl.dot(weight.to(g.dtype), g, of_values, input_precision=PRECISION)
            slope = weight * (tl.dot(v, tl.trans(g), input_precision=PRECISION) - along[None, :])
            of_keys = tl.dot(slope.to(q.dtype), q, of_keys, input_precision=PRECISION)
    channel = tl.arange(0, CHANNELS)
    at = of_head + (place[:, None] * line + channel[None, :])
    stored = within[:, None] & (channel < HEAD_WIDTH)[None, :]
    tl.store(grad_key + at, of_keys.to(grad_key.dtype.element_ty), mask=stored)
    tl.store(grad_value + at, of_values.to(grad_value.dtype.element_ty), mask=stored)


@triton.jit
def added_by_readers(
    axial: tl.tensor,
    of_query: tl.tensor,
    reader_row: tl.tensor,
    reader: tl.tensor,
    tile_row: tl.tensor,
    tile_column: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    K: tl.constexpr,
    BORDER: tl.constexpr,
    SIDE: tl.constexpr,
    SPAN: tl.constexpr,
) -> tl.tensor:
    """(P, SPAN): terms that the readers in one row add to their logits of a tile's keys.

    A term is the same for all keys of a row or of a column of the tile, and loaded once for them.
    """
    row = tile_row + tl.arange(0, SIDE)[:, None]  # (SIDE, 1)
    column = tile_column + tl.arange(0, SIDE)[:, None]
    first_row = first_step(reader_row, rows, K, BORDER)
    first_column = first_step(reader, columns, K, BORDER)[None, :]  # (1, SPAN)
    real = (reader < columns)[None, :]
    in_row = real & (row >= first_row) & (row < first_row + K)  # (SIDE, SPAN)
    in_column = real & (column >= first_column) & (column < first_column + K)
    by_row = load_axial(axial, of_query[None, :], row - reader_row, in_row, 0, K, BORDER)
    by_column = load_axial(axial, of_query[None, :], column - reader[None, :], in_column, 1, K, BORDER)
    return (by_row[:, None, :] + by_column[None, :, :]).reshape(SIDE * SIDE, SPAN)
