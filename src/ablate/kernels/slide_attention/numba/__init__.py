"""Attention over mixed neighbors on a CPU: loops compiled by Numba, float32, no map of a tap in memory.

Two sums do all the work. `pairs.products` has what pairs a position with its K² mixed neighbors, a number a
tap: Σ_c x[c] (Σ_s w[t,s,c] y[n(s),c] + e[t,c]). `pairs.mixture` sums neighbors by the filter that numbers a
tap make of w: Σ_s (Σ_t p_t w[t,s,c]) y[n(s),c] + Σ_t p_t e[t,c]. Gradients are the same sums with other
operands; that of w is summed by strips of lines, each strip on its own, so that the same input gives the
same bits.

Operations, stage 1 of Swin-T, batch 8 (56×56, 96 channels, K = 3): 434 M multiply-accumulates forward and
1.5 G backward, 0.1 G of them to compute again what two strips need. The weights w of a head of 32 channels
are 10 kB and stay in the first cache. Bound by arithmetic.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ablate.kernels._numba.run import flat, run
from ablate.kernels._numba.simd import vectors_for
from ablate.kernels.slide_attention.inputs import Inputs
from ablate.kernels.slide_attention.numba import gradients
from ablate.kernels.slide_attention.numba.forward import forward
from ablate.kernels.slide_attention.numba.pairs import Form, Maps, Weights


def attention(inputs: Inputs, kernel: int) -> Tensor:
    """Output (B, H, W, C); see `reference`."""
    query, key, value, mix, own, table = inputs
    out = torch.empty(query.shape)
    run(
        forward,
        Maps(*map(flat, (query, key, value))),
        Weights(*map(flat, _weights(mix, own, table))),
        flat(out),
        _form(query, table, kernel),
        vectors_for(mix.shape[0]),
    )
    return out.to(query.dtype)


def backward(grad: Tensor, inputs: Inputs, kernel: int) -> tuple[Tensor, ...]:
    """Gradients of the six operands; see `reference`."""
    query, key, value, mix, own, table = inputs
    (batch, height), heads = query.shape[:2], table.shape[0]
    taps, width = kernel**2, mix.shape[0]
    strips = batch * -(-height // gradients.STRIP)
    of_maps = [torch.empty(query.shape) for _ in range(3)]
    of_mix = torch.zeros(strips, taps, taps, width)
    of_logits, of_values = torch.zeros(strips, heads, taps, width), torch.zeros(strips, taps, width)
    run(
        gradients.backward,
        flat(grad),
        Maps(*map(flat, (query, key, value))),
        Weights(*map(flat, _weights(mix, own, table))),
        gradients.Gradients(*map(flat, (*of_maps, of_mix, of_logits, of_values))),
        _form(query, table, kernel),
        vectors_for(width),
    )
    of_query, of_key, of_value = (x.to(query.dtype) for x in of_maps)
    of_logits, of_values = of_logits.sum(0), of_values.sum(0)
    of_own = (of_logits.sum(0) + of_values).T
    return (
        of_query,
        of_key,
        of_value,
        of_mix.sum(0).permute(2, 0, 1).to(mix.dtype, copy=True).contiguous(),
        of_own.to(own.dtype).contiguous(),
        of_logits.sum(-1).to(table.dtype),
    )


def _weights(mix: Tensor, own: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """w (taps, K², d), e of logits (heads, taps, d) and of values (taps, d), taps filled up to fours."""
    filling = -table.shape[1] % 4
    of_values = own.float().T
    of_logits = of_values + table.float()[..., None]
    return (
        F.pad(mix.float().permute(1, 2, 0), (0, 0, 0, 0, 0, filling)),
        F.pad(of_logits, (0, 0, 0, filling)),
        F.pad(of_values, (0, 0, 0, filling)),
    )


def _form(query: Tensor, table: Tensor, kernel: int) -> Form:
    _, height, width, _ = query.shape
    return Form(height, width, table.shape[0], kernel)
