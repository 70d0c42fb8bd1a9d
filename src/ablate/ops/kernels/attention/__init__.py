"""Softmax attention over sliding neighbourhoods in one pass, as the PyTorch operator `ablate::attention`.

A fast implementation keeps only the logarithm of each row's sum, never the K² weights; the backward
pass computes them again, and a second derivative is refused. Where there is none, for this device,
precision or width of a head, `attention` below composes scores, softmax and sum, which differentiate
any number of times. `reference` is the truth that both are compared with.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ablate.ops.kernels import sums
from ablate.ops.kernels.attention import reference
from ablate.ops.kernels.choice import fast

__all__ = ["attention"]

WIDTH = 16  # a fast implementation takes heads of a multiple of this many channels


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    *,
    kernel: int,
    dilation: int = 1,
    border: str = "zero",
) -> Tensor:
    """y_i = Σ_t softmax_t( q_i · k_{n(i,t)} + bias[g, offset(i, t)] ) v_{n(i,t)} for each head g.

    Under border `zero`, taps outside the map have key and value 0 and take part; under `mask` they
    do not; under `inside` there are none.

    Args:
        query: (B, H, W, C), scaled as its logits are to be.
        key: (B, H, W, C).
        value: (B, H, W, C).
        bias: (heads, offsets), heads dividing C.
        kernel: K, odd; `dilation`: distance of two taps; `border`: zero, mask or inside.

    Returns:
        (B, H, W, C) in the dtype of `value`.
    """
    query, key, value = (x.to(value.dtype).contiguous() for x in (query, key, value))
    neighborhood = (kernel, dilation, border)
    if fused(query, len(bias)):
        return _attention(query, key, value, bias.contiguous(), *neighborhood)[0]
    scores = sums.scores(query, key, None, len(bias), *neighborhood, 1)
    weights = reference.logits(scores, bias, *neighborhood).softmax(-1).to(value.dtype)
    return sums.aggregate(value, weights.contiguous(), None, None, *neighborhood, 1)


def fused(query: Tensor, heads: int) -> bool:
    """Whether one pass computes attention with these queries."""
    return query.device.type == "cpu" and fast(query) and query.shape[-1] // heads % WIDTH == 0


@torch.library.custom_op("ablate::attention", mutates_args=())
def _attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, kernel: int, dilation: int, border: str
) -> tuple[Tensor, Tensor]:
    """Output, and (B, heads, H, W) logarithms of the rows' sums."""
    return reference.attention(query, key, value, bias, kernel, dilation, border)


@torch.library.custom_op("ablate::attention_backward", mutates_args=())
def _backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    out: Tensor,
    rows: Tensor,
    kernel: int,
    dilation: int,
    border: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value and bias."""
    return reference.backward(grad, query, key, value, bias, out, rows, kernel, dilation, border)


@_attention.register_kernel("cpu")
def _(*arguments: Any) -> tuple[Tensor, Tensor]:
    from ablate.ops.kernels.attention import cpu

    return cpu.attention(*arguments)


@_backward.register_kernel("cpu")
def _(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from ablate.ops.kernels.attention import cpu

    return cpu.backward(*arguments)


@_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, *neighborhood: Any) -> tuple[Tensor, Tensor]:
    batch, height, width, _ = query.shape
    rows = query.new_empty(batch, len(bias), height, width, dtype=reference.row_type(query.dtype))
    return query.new_empty(query.shape), rows


@_backward.register_fake
def _(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, *others: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    query_grad, key_grad, value_grad, bias_grad = (x.new_empty(x.shape) for x in (query, key, value, bias))
    return query_grad, key_grad, value_grad, bias_grad


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, bias, *ctx.neighborhood = inputs
    ctx.save_for_backward(query, key, value, bias, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 7
    return (*_backward(grad.contiguous(), *ctx.saved_tensors, *ctx.neighborhood), None, None, None)


def _no_second_derivative(ctx: Any, *_: Any) -> tuple[None, ...]:
    raise RuntimeError(
        "ablate::attention has no second derivative: compose ablate.ops.kernels.scores, a softmax and "
        "ablate.ops.kernels.aggregate where you need one"
    )


_attention.register_autograd(_gradients, setup_context=_save)
_backward.register_autograd(_no_second_derivative)


@register_flop_formula(torch.ops.ablate.attention)
def _flops(
    query: tuple[int, ...],
    key: tuple[int, ...],
    value: tuple[int, ...],
    bias: tuple[int, ...],
    kernel: int,
    *args: Any,
    out_shape: Any = None,
    **kwargs: Any,
) -> int:
    """Two FLOPs per channel and tap for the scores, two for the sum."""
    return 4 * math.prod(query) * kernel**2


@register_flop_formula(torch.ops.ablate.attention_backward)
def _backward_flops(
    grad: tuple[int, ...],
    query: tuple[int, ...],
    key: tuple[int, ...],
    value: tuple[int, ...],
    bias: tuple[int, ...],
    out: tuple[int, ...],
    rows: tuple[int, ...],
    kernel: int,
    *args: Any,
    out_shape: Any = None,
    **kwargs: Any,
) -> int:
    """Four sums: those of weights and values, and one each for query and key."""
    return 8 * math.prod(query) * kernel**2
