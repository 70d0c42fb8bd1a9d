"""Softmax attention over neighbors that static filters mix: `ablate::slide_attention` in PyTorch.

    y_i = Σ_t softmax_t( q_i·(k_{i,t} + b_t) ) v_{i,t}
    k_{i,t} = Σ_s w_{t,s} ⊙ k_{n(i,s)} + u_t,   v_{i,t} in the same way

(Slide-Transformer, Pan et al., 2023.) Neither the loops of `numba` nor the kernels of `triton` store any of
the K² maps of keys and values, forward or backward. On CUDA `parts` gathers those of a few images at a time
where K or the heads are too large for the kernels. All refuse a second derivative. For another device,
precision or width of a head `reference` computes, and differentiates any number of times.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ablate.kernels.dispatch import fast, implementation
from ablate.kernels.precision import as_declared, in_autocast
from ablate.kernels.slide_attention import parts, reference
from ablate.kernels.slide_attention.inputs import Inputs

__all__ = ["attention"]

WIDTH = 8  # the loops of the CPU take heads of a multiple of this many channels
WIDEST = {torch.float32: 32, torch.bfloat16: 64, torch.float16: 64}  # channels of a head: a GPU's registers
LARGEST = 5  # K: a GPU's registers


def attention(
    query: Tensor, key: Tensor, value: Tensor, mix: Tensor, own: Tensor, table: Tensor, *, kernel: int
) -> Tensor:
    """The equation above; neighbors outside the map are 0 and are mixed as such.

    Args:
        query: (B, H, W, C), scaled as its logits are to be.
        key: (B, H, W, C).
        value: (B, H, W, C).
        mix: w, (C/heads, K², K²): channel of a head, tap, neighbor; shared by heads, keys and values.
        own: u, (C/heads, K²).
        table: b, (heads, K²): one number for all channels of a head.
        kernel: K, odd.

    Returns:
        (B, H, W, C) in the dtype of `value`, or of autocast.
    """
    value = in_autocast(value)
    query, key, value = (x.to(value.dtype).contiguous() for x in (query, key, value))
    inputs = Inputs(query, key, value, mix.contiguous(), own.contiguous(), table.contiguous())
    if fused(query, table.shape[0]):
        return _attention(*inputs, kernel)
    return reference.attention(inputs, kernel)


def fused(query: Tensor, heads: int) -> bool:
    """Return True if one operator, which saves only its operands, computes attention with these queries."""
    return fast(query) and (query.device.type == "cuda" or query.shape[-1] // heads % WIDTH == 0)


def computing(query: Tensor, heads: int, kernel: int) -> Any:
    """The module that computes the operator: `numba`, `triton`, `parts` or `reference`."""
    width = query.shape[-1] // heads
    if query.device.type == "cuda" and (kernel > LARGEST or width > WIDEST.get(query.dtype, 0)):
        return parts
    return implementation(query, "slide_attention")


_INPUTS = "Tensor query, Tensor key, Tensor value, Tensor mix, Tensor own, Tensor table"


@torch.library.custom_op(
    "ablate::slide_attention", mutates_args=(), schema=f"({_INPUTS}, SymInt kernel) -> Tensor"
)
def _attention(query: Tensor, *others: Any) -> Tensor:
    *operands, kernel = others
    inputs = Inputs(query, *operands)
    module = computing(query, inputs.table.shape[0], kernel)
    with as_declared(query):
        return module.attention(inputs, kernel)


@torch.library.custom_op(
    "ablate::slide_attention_backward",
    mutates_args=(),
    schema=f"(Tensor grad, {_INPUTS}, SymInt kernel) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _backward(grad: Tensor, *others: Any) -> tuple[Tensor, ...]:
    """Gradients of the six operands."""
    *operands, kernel = others
    inputs = Inputs(*operands)
    module = computing(inputs.query, inputs.table.shape[0], kernel)
    with as_declared(inputs.query):
        return module.backward(grad, inputs, kernel)


@_attention.register_fake
def _(query: Tensor, *_: Any) -> Tensor:
    return query.new_empty(query.shape)


@_backward.register_fake
def _(grad: Tensor, *operands: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    query, key, value, mix, own, table = (x.new_empty(x.shape) for x in operands[:6])
    return query, key, value, mix, own, table


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *operands, ctx.kernel = inputs
    ctx.save_for_backward(*operands)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return (*_backward(grad.contiguous(), *ctx.saved_tensors, ctx.kernel), None)


def _no_second_derivative(ctx: Any, *_: Any) -> tuple[None, ...]:
    raise RuntimeError(
        "ablate::slide_attention has no second derivative: compute in float64, or with "
        "infra.kernels=reference, where you need one"
    )


_attention.register_autograd(_gradients, setup_context=_save)
_backward.register_autograd(_no_second_derivative)


@register_flop_formula(torch.ops.ablate.slide_attention)
def _flops(query: tuple[int, ...], *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Count K² convolutions of K² taps for keys and values each, and one product with each of the K²."""
    taps = args[-1] ** 2
    return 4 * math.prod(query) * (taps * taps + taps)


@register_flop_formula(torch.ops.ablate.slide_attention_backward)
def _backward_flops(grad: tuple[int, ...], *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Two gradients of each: without the weights that are computed again."""
    taps = args[-1] ** 2
    return 8 * math.prod(grad) * (taps * taps + taps)
