"""Weights and slopes of attention over mixed neighbors, and its gradients by query and table."""

from __future__ import annotations

import torch
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


def launch_query_gradient(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, mixture: Mixture, grad_query: Tensor
) -> tuple[Launch, Tensor, Tensor]:
    """The call that fills the gradient, and what else it fills.

    Weights and slopes of all positions (2, heads, B · H · W, TAPS) for the other gradients, and what each
    tile adds to the gradient of the table (tiles, heads, TAPS).
    """
    _, height, width, _ = query.shape
    heads, taps = mixture.table.shape
    positions, programs = query.shape[:3].numel(), tiles(query)
    numbers = query.new_empty(2, heads, positions, taps)
    partial = query.new_empty(programs, heads, taps, dtype=torch.float32)
    launch = Launch(
        slide_query_gradient_kernel,
        programs * heads,
        {
            "grad": grad,
            "query": query,
            "key": key,
            "value": value,
            "filters": mixture.filters,
            "table": mixture.table,
            "numbers": numbers,
            "grad_query": grad_query,
            "partial": partial,
            "positions": positions,
            "height": height,
            "width": width,
            "heads": heads,
        },
        mixture.constants() | {"TOGETHER": mixture.together},
        mixture.warps,
        stages=2 if mixture.split else 1,
    )
    return launch, numbers, partial


@triton.jit(do_not_specialize=["positions", "height", "width", "heads"])
def slide_query_gradient_kernel(
    grad: tl.tensor,
    query: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    filters: tl.tensor,
    table: tl.tensor,
    numbers: tl.tensor,
    grad_query: tl.tensor,
    partial: tl.tensor,
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
    """Some positions of one head: weights p computed again, slopes s, and what follows from the two alone.

    With mixed neighbors k_t and v_t: s_t = p_t (g·v_t − Σ_r p_r g·v_r) and dq = Σ_t s_t (k_t + b_t), all as
    products of matrices like forward.

    Swin-T at batch 128, K = 3, bfloat16: stage 1 moves 462 MB, a sixth of it weights and slopes, stage 4 58
    MB: 138 and 17 µs on an H100, 37 and 5 µs of its tensor cores: memory is the ceiling. A program takes
    2360 instructions per thread, 192 and 24 µs to issue: expect 72 %. In float32 276 µs of memory in stage 1
    and 7940 instructions, 645 µs: 43 %.
    """
    program = tl.program_id(0)
    head, tile = program % heads, program // heads
    first, row, column, within = locate_tile(tile, positions, height, width, POSITIONS)
    line = heads * HEAD_WIDTH
    start, at = first * line + head * HEAD_WIDTH, tl.arange(0, POSITIONS) * line
    tap, channel = tl.arange(0, TAPS), tl.arange(0, CHANNELS)
    q = load_channels(query + start, at, within, 0, HEAD_WIDTH, CHANNELS)
    g = load_channels(grad + start, at, within, 0, HEAD_WIDTH, CHANNELS)
    u = load_filters(filters, K * K, TAPS, CHANNELS)
    b = tl.load(table + head * TAPS + tap)
    along = tl.sum(q.to(tl.float32), axis=1)  # (P,)
    logits = tl.dot(q, tl.trans(u), along[:, None] * b[None, :], input_precision=PRECISION)  # (P, TAPS)
    pull = tl.dot(g, tl.trans(u), input_precision=PRECISION)
    for base in tl.range(0, K * K, TOGETHER):
        for place in tl.static_range(0, TOGETHER):
            ahead, real = step_to(base + place, row, column, within, height, width, K)
            k = load_channels(key + start, at + ahead * line, real, 0, HEAD_WIDTH, CHANNELS)
            v = load_channels(value + start, at + ahead * line, real, 0, HEAD_WIDTH, CHANNELS)
            w = tl.trans(load_filters(filters, base + place, TAPS, CHANNELS))
            logits = tl.dot(q * k, w, logits, input_precision=PRECISION)
            pull = tl.dot(g * v, w, pull, input_precision=PRECISION)
    weight = softmax(logits, K, TAPS)
    slope = weight * (pull - tl.sum(weight * pull, axis=1)[:, None])
    thin = slope.to(q.dtype)
    tl.store(partial + program * TAPS + tap, tl.sum(slope * along[:, None], axis=0))
    numbers += (head * positions + first) * TAPS
    number_at = tl.arange(0, POSITIONS)[:, None] * TAPS + tap[None, :]
    tl.store(numbers + number_at, weight.to(q.dtype), mask=within[:, None])
    numbers += tl.cast(heads, tl.int64) * positions * TAPS
    tl.store(numbers + number_at, thin, mask=within[:, None])
    total = tl.dot(thin, u, input_precision=PRECISION) + tl.sum(slope * b[None, :], axis=1)[:, None]
    for base in tl.range(0, K * K, TOGETHER):
        for place in tl.static_range(0, TOGETHER):
            ahead, real = step_to(base + place, row, column, within, height, width, K)
            k = load_channels(key + start, at + ahead * line, real, 0, HEAD_WIDTH, CHANNELS)
            w = load_filters(filters, base + place, TAPS, CHANNELS)
            total += tl.dot(thin, w, input_precision=PRECISION) * k
    tl.store(
        grad_query + start + (at[:, None] + channel[None, :]),
        total.to(grad_query.dtype.element_ty),
        mask=within[:, None] & (channel < HEAD_WIDTH)[None, :],
    )
