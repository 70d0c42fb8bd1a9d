"""Gradients of attention over mixed neighbors with respect to keys and values."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ablate.kernels._triton.launch import Launch
from ablate.kernels._triton.residues import load_channels
from ablate.kernels.slide_attention.triton.positions import Mixture, load_filters, locate_tile, step_to, tiles


def launch_key_gradients(
    grad: Tensor, query: Tensor, mixture: Mixture, numbers: Tensor, grad_key: Tensor, grad_value: Tensor
) -> Launch:
    """The call that fills the two gradients."""
    _, height, width, _ = query.shape
    heads, _ = mixture.table.shape
    return Launch(
        slide_key_gradients_kernel,
        tiles(query) * heads,
        {
            "grad": grad,
            "query": query,
            "filters": mixture.filters,
            "numbers": numbers,
            "grad_key": grad_key,
            "grad_value": grad_value,
            "positions": query.shape[:3].numel(),
            "height": height,
            "width": width,
            "heads": heads,
        },
        mixture.constants(),
        mixture.warps,
        stages=2,
    )


@triton.jit(do_not_specialize=["positions", "height", "width", "heads"])
def slide_key_gradients_kernel(
    grad: tl.tensor,
    query: tl.tensor,
    filters: tl.tensor,
    numbers: tl.tensor,
    grad_key: tl.tensor,
    grad_value: tl.tensor,
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
) -> None:
    """Some keys of one head, which gather from the positions whose neighbors they are: no atomics.

    With slopes s_i and weights p_i (taps) of position i whose neighbor n is j: dk_j = Σ_n (s_i w_n) ⊙ q_i
    and dv_j = Σ_n (p_i w_n) ⊙ g_i.

    Swin-T at batch 128, K = 3, bfloat16: stage 1 moves 385 MB, stage 4 48 MB: 115 and 14 µs on an H100, 22
    and 3 µs of its tensor cores: memory is the ceiling. A neighbor takes 223 instructions per thread, 183
    and 23 µs to issue: expect 63 %. In float32 230 µs of memory in stage 1 and 550 instructions: 50 %.
    """
    head, tile = tl.program_id(0) % heads, tl.program_id(0) // heads
    first, row, column, within = locate_tile(tile, positions, height, width, POSITIONS)
    line = heads * HEAD_WIDTH
    start, at = first * line + head * HEAD_WIDTH, tl.arange(0, POSITIONS) * line
    channel = tl.arange(0, CHANNELS)
    weights = numbers + (head * positions + first) * TAPS
    slopes = weights + tl.cast(heads, tl.int64) * positions * TAPS
    of_key = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    of_value = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    for neighbor in tl.range(0, K * K):  # the reader for which these keys are it lies opposite
        ahead, real = step_to(K * K - 1 - neighbor, row, column, within, height, width, K)
        number_at = (tl.arange(0, POSITIONS) + ahead) * TAPS
        w = load_filters(filters, neighbor, TAPS, CHANNELS)
        s = load_channels(slopes, number_at, real, 0, TAPS, TAPS)
        q = load_channels(query + start, at + ahead * line, real, 0, HEAD_WIDTH, CHANNELS)
        of_key += tl.dot(s, w, input_precision=PRECISION) * q
        p = load_channels(weights, number_at, real, 0, TAPS, TAPS)
        g = load_channels(grad + start, at + ahead * line, real, 0, HEAD_WIDTH, CHANNELS)
        of_value += tl.dot(p, w, input_precision=PRECISION) * g
    stored = within[:, None] & (channel < HEAD_WIDTH)[None, :]
    at_channels = start + (at[:, None] + channel[None, :])
    tl.store(grad_key + at_channels, of_key.to(grad_key.dtype.element_ty), mask=stored)
    tl.store(grad_value + at_channels, of_value.to(grad_value.dtype.element_ty), mask=stored)
