"""v[j, c] = Σ_{i, t: n(i, t) = j} F[i, g, t] · y[i, c] on the tensor cores of a GPU: see `matrix`."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ablate.kernels._triton.launch import Launch
from ablate.kernels._triton.matrix import matrix_launch
from ablate.kernels._triton.residues import first_reader, first_step, last_reader, locate_class, steps_of
from ablate.kernels.geometry import Neighborhood


def launch_aggregate_transpose_matrix(
    outputs: Tensor, filters: Tensor, neighborhood: Neighborhood
) -> tuple[Launch, Tensor]:
    """The call that computes `aggregate_transpose` at stride 1, and the tensor that it fills."""
    out = outputs.new_empty(outputs.shape)
    tensors = {"outputs": outputs, "filters": filters, "out": out}
    heads = filters.shape[3]
    launch = matrix_launch(aggregate_transpose_matrix_kernel, tensors, heads, neighborhood, split_heads=True)
    return launch, out


@triton.jit(do_not_specialize=["height", "width", "heads"])
def aggregate_transpose_matrix_kernel(
    outputs: tl.tensor,
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
    """One tile of inputs: a row of those that read it at a time, transposed filters × their outputs.

    It gathers: no atomics, the same bits always. The readers of an input are neighbors of each
    other under `inside` too: `first_reader` and `last_reader` bound them.

    Bytes and operations are those of `aggregate_matrix_kernel`: Swin-T's stages 1 and 3 at batch 64
    in bfloat16 are bound by memory to 41 and 10 µs on an H100. A row takes 116 instructions per
    thread: expect 45 % of that bound.
    """
    PARTS: tl.constexpr = (HEAD_WIDTH + CHANNELS - 1) // CHANNELS
    image, residue_row, residue_column, tile_row, tile_column, part = locate_class(
        height, width, heads * PARTS, DILATION, SIDE, SIDE
    )
    head = part // PARTS
    channel = part % PARTS * CHANNELS + tl.arange(0, CHANNELS)
    line = heads * HEAD_WIDTH
    outputs += image * height * width * line + head * HEAD_WIDTH
    out += image * height * width * line + head * HEAD_WIDTH
    filters += image * height * width * heads * (K * K) + head * (K * K)
    rows = steps_of(height, residue_row, DILATION)
    columns = steps_of(width, residue_column, DILATION)
    row = tile_row + tl.arange(0, SIDE * SIDE) // SIDE  # (P,)
    column = tile_column + tl.arange(0, SIDE * SIDE) % SIDE
    within = (row < rows) & (column < columns)
    top = first_reader(tile_row, K, BORDER)
    bottom = last_reader(tl.minimum(tile_row + SIDE, rows) - 1, rows, K, BORDER)
    left = first_reader(tile_column, K, BORDER)
    right = last_reader(tl.minimum(tile_column + SIDE, columns) - 1, columns, K, BORDER)
    total = tl.zeros((SIDE * SIDE, CHANNELS), tl.float32)
    for start in tl.range(left, right + 1, SPAN):  # twice only where neighborhoods crowd at a border
        reader = start + tl.arange(0, SPAN)  # (SPAN,)
        # one reader's taps are neighbors in memory: positions come last, to be read in that order
        tap = column[None, :] - first_step(reader, columns, K, BORDER)[:, None]  # (SPAN, P)
        reader_at = residue_column + reader * DILATION
        filter_at = reader_at[:, None] * heads * (K * K) + row[None, :] * K + tap
        filter_real = (reader < columns)[:, None] & (tap >= 0) & (tap < K)
        output_at = reader_at[:, None] * line + channel[None, :]
        output_real = (reader < columns)[:, None] & (channel < HEAD_WIDTH)[None, :]
        for reader_row in tl.range(top, bottom + 1):
            first_row = first_step(reader_row, rows, K, BORDER)
            tap_real = (row >= first_row) & (row < first_row + K)
            row_at = (residue_row + reader_row * DILATION) * width
            weight = tl.load(
                filters + (filter_at + (row_at * heads * (K * K) - first_row * K)),
                mask=filter_real & tap_real[None, :],
                other=0.0,
            )
            output = tl.load(outputs + (output_at + row_at * line), mask=output_real, other=0.0)
            total = tl.dot(tl.trans(weight), output, total)
    place = (residue_row + row * DILATION) * width + residue_column + column * DILATION
    tl.store(
        out + (place[:, None] * line + channel[None, :]),
        total.to(out.dtype.element_ty),
        mask=within[:, None] & (channel < HEAD_WIDTH)[None, :],
    )
