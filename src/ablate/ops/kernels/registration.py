"""`ablate::aggregate`, `ablate::scores` and `ablate::spread` as PyTorch operators.

Registered with fake implementations, gradients and FLOP formulas, so that tracing, the meta
device and `torch.utils.flop_counter` see one operator whatever computes it. A fast implementation
registers itself for its device key and nothing above changes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ablate.ops.kernels import reference
from ablate.ops.kernels.choice import implementation
from ablate.ops.kernels.geometry import strided


@torch.library.custom_op("ablate::aggregate", mutates_args=())
def aggregate(
    values: Tensor, filters: Tensor, kernel: int, dilation: int, border: str, stride: int
) -> Tensor:
    """y[i, c] = Σ_t F[i, g, t] · v[n(i, t), c]."""
    return reference.aggregate(values, filters, kernel, dilation, border, stride)


@torch.library.custom_op("ablate::scores", mutates_args=())
def scores(
    query: Tensor, key: Tensor, heads: int, kernel: int, dilation: int, border: str, stride: int
) -> Tensor:
    """s[i, g, t] = Σ_c q[i, c] · k[n(i, t), c], over the channels c of head g."""
    return reference.scores(query, key, heads, kernel, dilation, border, stride)


@torch.library.custom_op("ablate::spread", mutates_args=())
def spread(
    outputs: Tensor,
    filters: Tensor,
    height: int,
    width: int,
    kernel: int,
    dilation: int,
    border: str,
    stride: int,
) -> Tensor:
    """v[j, c] = Σ_{i, t: n(i, t) = j} F[i, g, t] · y[i, c]."""
    return reference.spread(outputs, filters, height, width, kernel, dilation, border, stride)


aggregate.register_kernel("cpu")(lambda values, *others: implementation(values).aggregate(values, *others))
spread.register_kernel("cpu")(lambda outputs, *others: implementation(outputs).spread(outputs, *others))
scores.register_kernel("cpu")(lambda query, *others: implementation(query).scores(query, *others))


@aggregate.register_fake
def _(values: Tensor, filters: Tensor, kernel: int, dilation: int, border: str, stride: int) -> Tensor:
    _, height, width, channels = values.shape
    return values.new_empty(len(values), strided(height, stride), strided(width, stride), channels)


@scores.register_fake
def _(query: Tensor, key: Tensor, heads: int, kernel: int, dilation: int, border: str, stride: int) -> Tensor:
    return query.new_empty(*query.shape[:3], heads, kernel * kernel)


@spread.register_fake
def _(outputs: Tensor, filters: Tensor, height: int, width: int, *neighborhood: Any) -> Tensor:
    return outputs.new_empty(len(outputs), height, width, outputs.shape[-1])


def _save_aggregate(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    values, filters, *ctx.neighborhood = inputs
    ctx.save_for_backward(values, filters)


def _aggregate_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    values, filters = ctx.saved_tensors
    grad = grad.contiguous()
    grad_values = grad_filters = None
    if ctx.needs_input_grad[0]:
        grad_values = spread(grad, filters, *values.shape[1:3], *ctx.neighborhood)
    if ctx.needs_input_grad[1]:
        grad_filters = scores(grad, values, filters.shape[3], *ctx.neighborhood)
    return grad_values, grad_filters, None, None, None, None


def _save_spread(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    outputs, filters, _, _, *ctx.neighborhood = inputs
    ctx.save_for_backward(outputs, filters)


def _spread_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    outputs, filters = ctx.saved_tensors
    grad = grad.contiguous()
    grad_outputs = grad_filters = None
    if ctx.needs_input_grad[0]:
        grad_outputs = aggregate(grad, filters, *ctx.neighborhood)
    if ctx.needs_input_grad[1]:
        grad_filters = scores(outputs, grad, filters.shape[3], *ctx.neighborhood)
    return grad_outputs, grad_filters, None, None, None, None, None, None


def _save_scores(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    query, key, _, *ctx.neighborhood = inputs
    ctx.save_for_backward(query, key)


def _scores_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    query, key = ctx.saved_tensors
    grad = grad.contiguous()
    grad_query = grad_key = None
    if ctx.needs_input_grad[0]:
        grad_query = aggregate(key, grad, *ctx.neighborhood)
    if ctx.needs_input_grad[1]:
        grad_key = spread(query, grad, *key.shape[1:3], *ctx.neighborhood)
    return grad_query, grad_key, None, None, None, None, None


aggregate.register_autograd(_aggregate_backward, setup_context=_save_aggregate)
spread.register_autograd(_spread_backward, setup_context=_save_spread)
scores.register_autograd(_scores_backward, setup_context=_save_scores)


@register_flop_formula(torch.ops.ablate.aggregate)
def _aggregate_flops(
    values: tuple[int, ...], filters: tuple[int, ...], *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    """Two FLOPs per channel and tap of every position of the output."""
    batch, height, width, _, taps = filters
    return 2 * batch * height * width * values[-1] * taps


@register_flop_formula(torch.ops.ablate.spread)
def _spread_flops(
    outputs: tuple[int, ...], filters: tuple[int, ...], *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    """Two FLOPs per channel and tap of every strided position."""
    return 2 * math.prod(outputs) * filters[-1]


@register_flop_formula(torch.ops.ablate.scores)
def _scores_flops(
    query: tuple[int, ...],
    key: tuple[int, ...],
    heads: int,
    kernel: int,
    *args: Any,
    out_shape: Any = None,
    **kwargs: Any,
) -> int:
    """Two FLOPs per channel and tap of every strided position."""
    return 2 * math.prod(query) * kernel**2
