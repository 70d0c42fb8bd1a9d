"""Attention over mixed neighbors in one pass: no map of a tap in memory."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ablate.kernels._triton.launch import Launch
from ablate.kernels._triton.residues import load_channels
from ablate.kernels.slide_attention.triton.positions import (
    Mixture,
    load_filters,
    locate_tile,
    softmax,
    step_to,
    tiles,
)


def launch_attention(query: Tensor, key: Tensor, value: Tensor, mixture: Mixture) -> tuple[Launch, Tensor]:
    """The call that computes the attention, and the tensor that it fills."""
    _, height, width, _ = query.shape
    out, heads = query.new_empty(query.shape), len(mixture.table)
    launch = Launch(
        slide_forward_kernel,
        tiles(query) * heads,
        {
            "query": query,
            "key": key,
            "value": value,
            "filters": mixture.filters,
            "table": mixture.table,
            "out": out,
            "positions": query.shape[:3].numel(),
            "height": height,
            "width": width,
            "heads": heads,
        },
        mixture.constants() | {"TOGETHER": mixture.together},
        mixture.warps,
        stages=2 if mixture.split else 1,
    )
    return launch, out


@triton.jit(do_not_specialize=["positions", "height", "width", "heads"])
def slide_forward_kernel(
    query: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    filters: tl.tensor,
    table: tl.tensor,
    out: tl.tensor,
    positions: int,
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
    """Some positions of one head: the logits of all taps, one neighbor at a time, and then the sum.

    With w_n (taps, channels) of neighbor n: logits = Σ_n (q ⊙ k_n) w_nᵀ + q (u + b)ᵀ and, with their
    softmax p, y = Σ_n (p w_n) ⊙ v_n + p u.

    Swin-T at batch 128, K = 3, bfloat16: stage 1 (56 × 56 × 96, 3 heads) moves 308 MB, stage 4 (7 × 7 ×
    768, 24 heads) 39 MB: 92 and 12 µs on an H100, and half as much from stage to stage between them. The
    13.9 and 1.7 GFLOP become 25 and 3 with taps filled up to 16, 25 and 3 µs of its tensor cores: memory is
    the ceiling. A program takes 1744 instructions per thread, 142 and 18 µs to issue: expect 65 %. In
    float32 (products of three parts each) it is 184 and 23 µs of memory, 150 and 19 µs of tensor cores and
    5780 instructions, 470 µs: 39 %. At batch 8 stage 1 is a sixteenth of that; stage 4 is 147 programs, about
    one for each multiprocessor, 2.4 MB, and takes as long as one program does. The maps of keys and values
    would be 1.4 GB and 173 MB.
    """
    head, tile = tl.program_id(0) % heads, tl.program_id(0) // heads
    first, row, column, within = locate_tile(tile, positions, height, width, POSITIONS)
    line = heads * HEAD_WIDTH
    start, at = first * line + head * HEAD_WIDTH, tl.arange(0, POSITIONS) * line
    q = load_channels(query + start, at, within, 0, HEAD_WIDTH, CHANNELS)
    u = load_filters(filters, K * K, TAPS, CHANNELS)
    b = tl.load(table + head * TAPS + tl.arange(0, TAPS))
    logits = tl.sum(q.to(tl.float32), axis=1)[:, None] * b[None, :]  # (P, TAPS)
    logits = tl.dot(q, tl.trans(u), logits, input_precision=PRECISION)
    for base in tl.range(0, K * K, TOGETHER):
        for place in tl.static_range(0, TOGETHER):
            ahead, real = step_to(base + place, row, column, within, height, width, K)
            k = load_channels(key + start, at + ahead * line, real, 0, HEAD_WIDTH, CHANNELS)
            w = load_filters(filters, base + place, TAPS, CHANNELS)
            logits = tl.dot(q * k, tl.trans(w), logits, input_precision=PRECISION)
    weight = softmax(logits, K, TAPS).to(q.dtype)
    total = tl.dot(weight, u, input_precision=PRECISION)  # (P, CHANNELS)
    for base in tl.range(0, K * K, TOGETHER):
        for place in tl.static_range(0, TOGETHER):
            ahead, real = step_to(base + place, row, column, within, height, width, K)
            v = load_channels(value + start, at + ahead * line, real, 0, HEAD_WIDTH, CHANNELS)
            w = load_filters(filters, base + place, TAPS, CHANNELS)
            total += tl.dot(weight, w, input_precision=PRECISION) * v
    channel = tl.arange(0, CHANNELS)
    tl.store(
        out + start + (at[:, None] + channel[None, :]),
        total.to(out.dtype.element_ty),
        mask=within[:, None] & (channel < HEAD_WIDTH)[None, :],
    )
