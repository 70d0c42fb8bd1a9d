"""Gradients of attention over mixed neighbors with respect to the filters that mix them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ablate.kernels._triton.launch import Launch
from ablate.kernels._triton.matrix import WARPS
from ablate.kernels._triton.residues import load_channels
from ablate.kernels.slide_attention.triton.positions import Mixture, locate_tile, step_to, tiles

SUMS = 5120  # that a program's registers hold: 3 × 3 taps and neighbors, heads of 32 channels
PROGRAMS = 512  # about; what each adds up is summed afterwards, in a fixed order
POSITIONS = {torch.float32: 16, torch.bfloat16: 32, torch.float16: 32}  # of a tile: no spills


def launch_filter_gradient(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, mixture: Mixture, numbers: Tensor
) -> tuple[Launch, Tensor]:
    """The call, and what it fills: gradients of w and u in parts (parts, heads, K² + 1, TAPS, CHANNELS)."""
    _, height, width, _ = query.shape
    heads, _ = mixture.table.shape
    neighbors, taps, filled = mixture.filters.shape
    size, together = POSITIONS[query.dtype], neighbors if neighbors * taps * filled == SUMS else 2
    groups = neighbors // together  # K² + 1 is an even number
    parts = min(tiles(query, size), max(1, PROGRAMS // (heads * groups)))
    partial = query.new_empty(parts, heads, *mixture.filters.shape, dtype=torch.float32)
    launch = Launch(
        slide_filter_gradient_kernel,
        parts * heads * groups,
        {
            "grad": grad,
            "query": query,
            "key": key,
            "value": value,
            "numbers": numbers,
            "partial": partial,
            "positions": query.shape[:3].numel(),
            "parts": parts,
            "height": height,
            "width": width,
            "heads": heads,
        },
        mixture.constants() | {"POSITIONS": size, "TOGETHER": together},
        WARPS,
        stages=1,
    )
    return launch, partial


@triton.jit(do_not_specialize=["positions", "parts", "height", "width", "heads"])
def slide_filter_gradient_kernel(
    grad: tl.tensor,
    query: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    numbers: tl.tensor,
    partial: tl.tensor,
    positions: int,
    parts: int,
    height: int,
    width: int,
    heads: int,
    K: tl.constexpr,
    HEAD_WIDTH: tl.constexpr,
    POSITIONS: tl.constexpr,
    TAPS: tl.constexpr,
    CHANNELS: tl.constexpr,
    PRECISION: tl.constexpr,
    TOGETHER: tl.constexpr,
) -> None:
    """Some neighbors of one head, all where they are nine, at every `parts`-th tile of positions.

    dw_n = Σ_i s_iᵀ (q_i ⊙ k_n) + p_iᵀ (g_i ⊙ v_n), and du in the same way with 1 instead of k and v, which
    comes after the last neighbor. A program adds up its tiles in registers: no atomics.

    Swin-T at batch 128, K = 3, bfloat16: stage 1 reads 385 MB, stage 4 48 MB: 115 and 14 µs on an H100, 25
    and 3 µs of its tensor cores: memory is the ceiling. A tile of 32 positions takes 459 instructions per
    thread, 75 and 9 µs to issue, but nothing is loaded ahead and 12 warps share a multiprocessor: expect
    50 %. In float32 230 µs of memory in stage 1 and 1379 instructions for 16 positions, 448 µs: 51 %. The
    partial sums are 10 MB, whatever the batch: at batch 8 twice a map of stage 1.
    """
    GROUPS: tl.constexpr = (K * K + 1) // TOGETHER
    program = tl.program_id(0)
    neighbor = program % GROUPS * TOGETHER
    program = program // GROUPS
    head, part = program % heads, program // heads
    line = heads * HEAD_WIDTH
    tap, channel = tl.arange(0, TAPS), tl.arange(0, CHANNELS)
    zero = tl.zeros((TAPS, CHANNELS), tl.float32)
    totals = (zero,) * TOGETHER
    for tile in tl.range(part, tl.cdiv(positions, POSITIONS), parts):
        first, row, column, within = locate_tile(tile, positions, height, width, POSITIONS)
        start, at = first * line + head * HEAD_WIDTH, tl.arange(0, POSITIONS) * line
        weights = numbers + (head * positions + first) * TAPS
        number_at = tl.arange(0, POSITIONS) * TAPS
        p = tl.trans(load_channels(weights, number_at, within, 0, TAPS, TAPS))  # (TAPS, P)
        slopes = weights + tl.cast(heads, tl.int64) * positions * TAPS
        s = tl.trans(load_channels(slopes, number_at, within, 0, TAPS, TAPS))
        q = load_channels(query + start, at, within, 0, HEAD_WIDTH, CHANNELS)
        g = load_channels(grad + start, at, within, 0, HEAD_WIDTH, CHANNELS)
        for place in tl.static_range(0, TOGETHER):
            ahead, real = step_to(neighbor + place, row, column, within, height, width, K)
            constant = neighbor + place == K * K
            there = at + ahead * line
            k = load_channels(key + start, there, real & ~constant, 0, HEAD_WIDTH, CHANNELS)
            v = load_channels(value + start, there, real & ~constant, 0, HEAD_WIDTH, CHANNELS)
            k = tl.where(constant, 1.0, k).to(q.dtype)
            v = tl.where(constant, 1.0, v).to(q.dtype)
            total = tl.dot(s, q * k, totals[0], input_precision=PRECISION)
            last = (tl.dot(p, g * v, total, input_precision=PRECISION),)
            totals = totals[1:] + last  # after the last neighbor the first is first again
    partial += ((part * heads + head).to(tl.int64) * (K * K + 1) + neighbor) * (TAPS * CHANNELS)
    for place in tl.static_range(0, TOGETHER):
        at = place * (TAPS * CHANNELS) + tap[:, None] * CHANNELS + channel[None, :]
        tl.store(partial + at, totals[place])
