"""Gradient of fused neighborhood attention with respect to its table of relative position biases."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ablate.kernels._triton.launch import Launch
from ablate.kernels._triton.matrix import SMALLEST, precision
from ablate.kernels._triton.residues import first_step, load_channels, steps_of
from ablate.kernels._triton.tiles import power_of_two
from ablate.kernels.geometry import Neighborhood, offsets_per_axis, strided
from ablate.kernels.neighborhood_attention.inputs import Inputs
from ablate.kernels.neighborhood_attention.triton.forward import LOG2_E, axial_of, load_axial, load_bias

QUERIES = SMALLEST  # neighbors in a row
PROGRAMS = 4096  # about; what each adds up is summed afterwards, in a fixed order


def launch_bias_gradient(
    grad: Tensor,
    inputs: Inputs,
    logsumexp: Tensor,
    product: Tensor,
    neighborhood: Neighborhood,
) -> tuple[Launch, Tensor]:
    """The call, and what it fills: for each head, row offset and part (G, offsets, parts, QUERIES, SPAN)."""
    kernel, dilation, border, _ = neighborhood
    batch, height, width, channels = inputs.query.shape
    heads, offsets = inputs.heads, offsets_per_axis(kernel, border)
    head_width = channels // heads
    tiles = batch * dilation**2 * strided(height, dilation) * strided(strided(width, dilation), QUERIES)
    parts = min(tiles, max(1, PROGRAMS // (heads * offsets)))
    span = power_of_two(QUERIES + offsets - 1)
    partial = logsumexp.new_empty(heads, offsets, parts, QUERIES, span)
    launch = Launch(
        bias_gradient_kernel,
        heads * offsets * parts,
        {
            "grad": grad,
            **inputs._asdict(),
            "logsumexp": logsumexp,
            "product": product,
            "partial": partial,
            "tiles": tiles,
            "parts": parts,
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
            "OFFSETS": offsets,
            "QUERIES": QUERIES,
            "SPAN": span,
            "CHANNELS": max(power_of_two(head_width), SMALLEST),
        },
        warps=4 if inputs.query.dtype == torch.float32 else 2,
    )
    return launch, partial


def summed(partial: Tensor) -> Tensor:
    """(G, offsets, parts, QUERIES, SPAN) → (G, offsets²): query c and key c + t of a tile are t apart."""
    heads, offsets, _, queries, span = partial.shape
    total = partial.sum(2)  # (G, offsets, QUERIES, SPAN)
    row, tile = total.stride(1), total.stride(0)
    diagonals = total.as_strided((heads, offsets, queries, offsets), (tile, row, span + 1, 1))
    return diagonals.sum(2).flatten(1)


@triton.jit(do_not_specialize=["tiles", "parts", "height", "width", "heads"])
def bias_gradient_kernel(
    grad: tl.tensor,
    query: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    bias: tl.tensor,
    axial: tl.tensor,
    logsumexp: tl.tensor,
    product: tl.tensor,
    partial: tl.tensor,
    tiles: int,
    parts: int,
    height: int,
    width: int,
    heads: int,
    K: tl.constexpr,
    DILATION: tl.constexpr,
    BORDER: tl.constexpr,
    HEAD_WIDTH: tl.constexpr,
    PRECISION: tl.constexpr,
    OFFSETS: tl.constexpr,
    QUERIES: tl.constexpr,
    SPAN: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """All pairs of one head whose rows lie one offset apart, or every `parts`-th tile of them.

    A tile is QUERIES neighbors in a row and the keys that they may meet, which begin at the
    same offset from the first query in every tile: gradients of the same offset are at the same
    place in all tiles, add up in registers, and become one number per offset at the end. No atomics.

    Swin-T at batch 64, K = 7, bfloat16: stage 1 reads 154 MB and has 301 thousand tiles, stage 3
    39 MB and 75 thousand: 46 and 12 µs of memory on an H100. A tile takes 491 instructions of two
    warps, 320 and 80 µs to issue: expect 15 % of the ceiling. The slowest of the three gradients.
    """
    program = tl.program_id(0)
    head = program // (OFFSETS * parts)
    down = program // parts % OFFSETS - OFFSETS // 2
    line = heads * HEAD_WIDTH
    across = tl.cdiv(tl.cdiv(width, DILATION), QUERIES)
    total = tl.zeros((QUERIES, SPAN), tl.float32)
    for tile in tl.range(program % parts, tiles, parts):
        tile_column = tile % across * QUERIES
        row = tile // across % tl.cdiv(height, DILATION)
        rest = tile // across // tl.cdiv(height, DILATION)
        residue_column, residue_row = rest % DILATION, rest // DILATION % DILATION
        image = (rest // (DILATION * DILATION)).to(tl.int64)
        rows = steps_of(height, residue_row, DILATION)
        columns = steps_of(width, residue_column, DILATION)
        met_row = row + down
        tap_row = met_row - first_step(row, rows, K, BORDER)
        row_real = (met_row >= 0) & (met_row < rows)
        row_counts = (row < rows) & (tap_row >= 0) & (tap_row < K) & (row_real | (BORDER == "zero"))
        if row_counts:
            column = tile_column + tl.arange(0, QUERIES)
            met = tile_column - OFFSETS // 2 + tl.arange(0, SPAN)
            within = column < columns
            met_real = (met >= 0) & (met < columns) & row_real
            tap = met[None, :] - first_step(column, columns, K, BORDER)[:, None]  # (QUERIES, SPAN)
            counts = within[:, None] & (tap >= 0) & (tap < K)
            if BORDER != "zero":
                counts = counts & met_real[None, :]
            place = (residue_row + row * DILATION) * width + residue_column + column * DILATION
            met_at = (residue_row + met_row * DILATION) * width + residue_column + met * DILATION
            of_head = image * height * width * line + head * HEAD_WIDTH
            of_map = (image * heads + head) * height * width + place
            q = load_channels(query + of_head, place * line, within, 0, HEAD_WIDTH, CHANNELS)
            g = load_channels(grad + of_head, place * line, within, 0, HEAD_WIDTH, CHANNELS)
            k = load_channels(key + of_head, met_at * line, met_real, 0, HEAD_WIDTH, CHANNELS)
            v = load_channels(value + of_head, met_at * line, met_real, 0, HEAD_WIDTH, CHANNELS)
            along = tl.load(product + of_map, mask=within, other=0.0)
            normal = tl.load(logsumexp + of_map, mask=within, other=0.0) * LOG2_E
            apart = met[None, :] - column[:, None]
            added = None
            if axial is not None:
                of_image = axial_of(axial, image, height * width, head, heads, K, BORDER)
                by_row = load_axial(of_image, place * heads, down, within, 0, K, BORDER)
                by_column = load_axial(of_image, (place * heads)[:, None], apart, counts, 1, K, BORDER)
                added = by_column + by_row[:, None]
            score = tl.dot(q, tl.trans(k), added, input_precision=PRECISION) * LOG2_E
            score += LOG2_E * load_bias(bias, head, down, apart, counts, K, BORDER)
            weight = tl.where(counts, tl.exp2(score - normal[:, None]), 0.0)
            total += weight * (tl.dot(g, tl.trans(v), input_precision=PRECISION) - along[:, None])
    at = tl.arange(0, QUERIES)[:, None] * SPAN + tl.arange(0, SPAN)[None, :]
    tl.store(partial + program * (QUERIES * SPAN) + at, total)
