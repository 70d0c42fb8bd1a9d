"""m[c, o] = Σ_{i, t: o(i, t) = o} F[i, g, t] · y[i, c] · v[n(i, t), c], and a without F, on a GPU."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ablate.kernels._triton.factors import first_offset
from ablate.kernels._triton.launch import Launch, border_rule
from ablate.kernels._triton.neighbors import first_neighbor, mirrored
from ablate.kernels._triton.tiles import Tile
from ablate.kernels.geometry import Neighborhood, offsets_per_axis, strided

REGISTERS = 168  # left alone, the assembler spills some bytes to do with 128
PROGRAMS = 2048  # about; what each adds up is summed afterwards, in a fixed order


def launch_static_grad(
    outputs: Tensor, values: Tensor, filters: Tensor, neighborhood: Neighborhood
) -> tuple[Launch, Tensor]:
    """The call, and what it fills: sums over a part of an image (B, parts, 2, offsets, offsets, C)."""
    kernel, dilation, border, stride = neighborhood
    batch, rows, columns, channels = outputs.shape
    height, width, heads = *values.shape[1:3], filters.shape[3]
    head_width, offsets = channels // heads, offsets_per_axis(kernel, border)
    taps = 2 * values.itemsize  # along a row in one program: 64 sums in each thread
    tile = Tile.of(rows, columns, min(offsets, taps), heads, head_width, values.itemsize)
    each = offsets * strided(offsets, tile.taps) * tile.parts(heads, head_width)  # programs of a part
    parts = max(1, min(tile.programs(1, rows, columns, 1), PROGRAMS // max(1, batch * each)))
    partial = outputs.new_empty(batch, parts, 2, offsets, offsets, channels, dtype=torch.float32)
    launch = Launch(
        static_grad_kernel,
        batch * parts * each,
        {
            "outputs": outputs,
            "values": values,
            "filters": filters,
            "partial": partial,
            "parts": parts,
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
        registers=REGISTERS,
    )
    return launch, partial


def summed(partial: Tensor, dtype: torch.dtype, shared: bool) -> tuple[Tensor, Tensor]:
    """(B, parts, 2, offsets, offsets, C) → of multiply and of add, (B or 1, C, offsets²) each."""
    if shared:
        partial = partial.flatten(0, 1)[None]
    of_multiply, of_add = (
        partial[:, :, table].sum(1).flatten(1, 2).transpose(1, 2).to(dtype).contiguous() for table in (0, 1)
    )
    return of_multiply, of_add


@triton.jit(do_not_specialize=["parts", "height", "width", "rows", "columns", "heads"])
def static_grad_kernel(
    outputs: tl.tensor,
    values: tl.tensor,
    filters: tl.tensor,
    partial: tl.tensor,
    parts: int,
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
    """All pairs of one image whose rows lie one offset apart, or every `parts`-th tile of them.

    Every thread adds up its own positions, and a program adds those up at its end: no atomics, the
    same bits always.

    Swin-T at batch 64, K = 7, float32: stage 1 (56 × 56 × 96, 3 heads) reads 272 MB and does 3.8
    GFLOP; stage 3 (14 × 14 × 384, 12 heads) reads 68 MB, 0.94 GFLOP. On an H100 memory is the ceiling,
    81 and 20 µs. A tile takes 238 instructions for 32 pairs per thread, and 1100 at the end: 283 and
    138 µs to issue. Outputs and values are read seven times, but once from memory. Expect 28 % and 15 %.
    """
    OFFSETS: tl.constexpr = 2 * K - 1 if BORDER == "inside" else K
    PASSES: tl.constexpr = (OFFSETS + TAPS - 1) // TAPS
    WIDTH_PARTS: tl.constexpr = (HEAD_WIDTH + CHANNELS - 1) // CHANNELS
    program = tl.program_id(0)  # those of one tile are neighbors: it is then still in the L2 cache
    down = program % OFFSETS
    program = program // OFFSETS
    across = program % PASSES * TAPS + tl.arange(0, TAPS)
    program = program // PASSES
    blocks = tl.cdiv(heads, HEADS) * WIDTH_PARTS
    block = program % blocks
    program = program // blocks
    image = (program // parts).to(tl.int64)  # a batch may hold more than 2³¹ elements
    head = block // WIDTH_PARTS * HEADS + tl.arange(0, HEADS)
    channel = block % WIDTH_PARTS * CHANNELS + tl.arange(0, CHANNELS)
    real = (head < heads)[:, None] & (channel < HEAD_WIDTH)[None, :]  # (HEADS, CHANNELS)
    of_map = head[:, None] * HEAD_WIDTH + channel[None, :]
    line = heads * HEAD_WIDTH
    outputs += image * rows * columns * line
    values += image * height * width * line
    filters += image * rows * columns * heads * (K * K)
    place = tl.arange(0, ROWS * COLUMNS)
    tiles_across = tl.cdiv(columns, COLUMNS)
    of_multiply = tl.zeros((TAPS, ROWS * COLUMNS, HEADS, CHANNELS), tl.float32)
    of_add = tl.zeros((TAPS, ROWS * COLUMNS, HEADS, CHANNELS), tl.float32)
    for tile in tl.range(program % parts, tl.cdiv(rows, ROWS) * tiles_across, parts):
        row = tile // tiles_across * ROWS + place // COLUMNS  # (P,)
        column = tile % tiles_across * COLUMNS + place % COLUMNS
        first_row = first_neighbor(row * STRIDE, height, K, DILATION, BORDER)
        first_column = first_neighbor(column * STRIDE, width, K, DILATION, BORDER)
        tap_row = down - first_offset(row * STRIDE, first_row, K, DILATION, BORDER)
        tap = across[:, None] - first_offset(column * STRIDE, first_column, K, DILATION, BORDER)[None, :]
        met_row = mirrored(first_row + tap_row * DILATION, height, BORDER)
        met = mirrored(first_column[None, :] + tap * DILATION, width, BORDER)  # (TAPS, P)
        row_counts = (row < rows) & (tap_row >= 0) & (tap_row < K) & (met_row >= 0) & (met_row < height)
        counts = (column < columns)[None, :] & (tap >= 0) & (tap < K) & (met >= 0) & (met < width)
        counts = counts & row_counts[None, :]
        if BORDER != "inside" or tl.max(row_counts.to(tl.int32)) > 0:  # far offsets are met at borders only
            output = tl.load(
                outputs + ((row * columns + column) * line)[:, None, None] + of_map,
                mask=(row_counts & (column < columns))[:, None, None] & real,
                other=0.0,
            )
            value = tl.load(
                values + (((met_row * width)[None, :] + met) * line)[:, :, None, None] + of_map,
                mask=counts[:, :, None, None] & real,
                other=0.0,
            )
            filter_at = ((row * columns + column)[:, None] * heads + head) * (K * K)  # (P, HEADS)
            weight = tl.load(
                filters + (filter_at + (tap_row * K)[:, None])[None, :, :] + tap[:, :, None],
                mask=counts[:, :, None] & (head < heads),
                other=0.0,
            )
            product = output.to(tl.float32) * value.to(tl.float32)
            of_add += product
            of_multiply += weight.to(tl.float32)[:, :, :, None] * product
    partial += (image * parts + program % parts) * (2 * OFFSETS * OFFSETS) * line
    at = (down * OFFSETS + across)[:, None, None] * line + of_map  # (TAPS, HEADS, CHANNELS)
    stored = (across < OFFSETS)[:, None, None] & real
    tl.store(partial + at, tl.sum(of_multiply, axis=1), mask=stored)
    tl.store(partial + OFFSETS * OFFSETS * line + at, tl.sum(of_add, axis=1), mask=stored)
