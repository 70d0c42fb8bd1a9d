"""Neighbourhood attention on CUDA tensors: scores, softmax and sum in one pass, gradients in three.

    y_i = Σ_t softmax_t(scale · q_i·k_n(i,t) + b_Δ) v_n(i,t)

(Hassani et al., 2023, where the border is `inside`; tiles in the manner of FlashAttention, Dao et
al., 2022.) The K² weights of a position never reach memory: backward they are computed again from
the logarithm of their sum. All gradients gather: the same operands give the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ablate.ops.kernels.attention.cuda.bias import launch_bias_gradient, summed
from ablate.ops.kernels.attention.cuda.forward import launch_attention
from ablate.ops.kernels.attention.cuda.keys import launch_key_gradients
from ablate.ops.kernels.attention.cuda.queries import launch_query_gradient
from ablate.ops.kernels.tiling.matrix import SIDE, SPAN

WIDEST = {torch.float32: 32, torch.bfloat16: 64, torch.float16: 64}  # channels of a head without spills


def reasons_against(query: Tensor, heads: int, kernel: int, dilation: int, border: str) -> list[str]:
    """Why these operands cannot be attended to here; empty if they can."""
    head_width = query.shape[-1] // heads
    widest = WIDEST.get(query.dtype, 0)
    found = []
    if head_width > widest:
        found.append(f"heads of {head_width} channels in {query.dtype}; at most {widest} fit")
    if SIDE + kernel - 1 > SPAN:
        found.append(f"kernel {kernel}; at most {SPAN - SIDE + 1} fits")
    if border not in ("zero", "mask", "inside"):
        found.append(f"border {border!r}; known: zero, mask, inside")
    return found


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    heads: int,
    kernel: int,
    dilation: int,
    border: str,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Attend to a sliding neighbourhood.

    Args:
        query: (B, H, W, C), as `key` and `value`: contiguous, of one dtype.
        bias: (G, offsets²), offsets from query to key, rows first: K² of them, (2K − 1)² where the
            neighbourhood moves inside.
        border: Under `zero` a tap outside the map counts with score b_Δ and value 0, under `mask` it
            does not count.

    Returns:
        (B, H, W, C), and the logarithms of the sums (B, H, W, G) in float32 for the gradient.
    """
    launch, out, logsumexp = launch_attention(query, key, value, bias, heads, kernel, dilation, border, scale)
    launch.run()
    return out, logsumexp


def attention_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    out: Tensor,
    logsumexp: Tensor,
    heads: int,
    kernel: int,
    dilation: int,
    border: str,
    scale: float,
    needs_bias: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of query, key, value and, if there is one and it needs one, bias."""
    sliding = (heads, kernel, dilation, border, scale)
    launch, grad_query, product = launch_query_gradient(
        grad, query, key, value, bias, out, logsumexp, *sliding
    )
    launch.run()
    launch, grad_key, grad_value = launch_key_gradients(
        grad, query, key, value, bias, logsumexp, product, *sliding
    )
    launch.run()
    if bias is None or not needs_bias:
        return grad_query, grad_key, grad_value, None
    launch, partial = launch_bias_gradient(grad, query, key, value, bias, logsumexp, product, *sliding)
    launch.run()
    return grad_query, grad_key, grad_value, summed(partial).to(bias.dtype)
