"""`ablate::aggregate`, `ablate::scores` and `ablate::spread` as PyTorch operators.

Registered with fake implementations, gradients and FLOP formulas, so that tracing, the meta
device and `torch.utils.flop_counter` see one operator whatever computes it. A fast implementation
registers itself for its device key and nothing above changes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ablate.ops.kernels import reference


@torch.library.custom_op("ablate::aggregate", mutates_args=())
def aggregate(values: Tensor, filters: Tensor, kernel: int, dilation: int, border: str) -> Tensor:
    """y[i, c] = Σ_t F[i, g, t] · v[n(i, t), c]."""
    return reference.aggregate(values, filters, kernel, dilation, border)


@torch.library.custom_op("ablate::scores", mutates_args=())
def scores(query: Tensor, key: Tensor, heads: int, kernel: int, dilation: int, border: str) -> Tensor:
    """s[i, g, t] = Σ_c q[i, c] · k[n(i, t), c], over the channels c of head g."""
    return reference.scores(query, key, heads, kernel, dilation, border)


@torch.library.custom_op("ablate::spread", mutates_args=())
def spread(outputs: Tensor, filters: Tensor, kernel: int, dilation: int, border: str) -> Tensor:
    """v[j, c] = Σ_{i, t: n(i, t) = j} F[i, g, t] · y[i, c]."""
    return reference.spread(outputs, filters, kernel, dilation, border)


@aggregate.register_fake
@spread.register_fake
def _(values: Tensor, filters: Tensor, kernel: int, dilation: int, border: str) -> Tensor:
    return values.new_empty(values.shape)


@scores.register_fake
def _(query: Tensor, key: Tensor, heads: int, kernel: int, dilation: int, border: str) -> Tensor:
    return query.new_empty(*query.shape[:3], heads, kernel * kernel)


def _save_sum(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    values, filters, *ctx.neighborhood = inputs
    ctx.save_for_backward(values, filters)


def _aggregate_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    values, filters = ctx.saved_tensors
    grad = grad.contiguous()
    heads = filters.shape[3]
    grad_values = spread(grad, filters, *ctx.neighborhood) if ctx.needs_input_grad[0] else None
    grad_filters = scores(grad, values, heads, *ctx.neighborhood) if ctx.needs_input_grad[1] else None
    return grad_values, grad_filters, None, None, None


def _spread_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    outputs, filters = ctx.saved_tensors
    grad = grad.contiguous()
    heads = filters.shape[3]
    grad_outputs = aggregate(grad, filters, *ctx.neighborhood) if ctx.needs_input_grad[0] else None
    grad_filters = scores(outputs, grad, heads, *ctx.neighborhood) if ctx.needs_input_grad[1] else None
    return grad_outputs, grad_filters, None, None, None


def _save_scores(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    query, key, _, *ctx.neighborhood = inputs
    ctx.save_for_backward(query, key)


def _scores_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    query, key = ctx.saved_tensors
    grad = grad.contiguous()
    grad_query = aggregate(key, grad, *ctx.neighborhood) if ctx.needs_input_grad[0] else None
    grad_key = spread(query, grad, *ctx.neighborhood) if ctx.needs_input_grad[1] else None
    return grad_query, grad_key, None, None, None, None


aggregate.register_autograd(_aggregate_backward, setup_context=_save_sum)
spread.register_autograd(_spread_backward, setup_context=_save_sum)
scores.register_autograd(_scores_backward, setup_context=_save_scores)


@register_flop_formula([torch.ops.ablate.aggregate, torch.ops.ablate.scores, torch.ops.ablate.spread])
def _flops(
    first: tuple[int, ...], second: tuple[int, ...], *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    """Two FLOPs per channel and tap of every position."""
    batch, height, width, channels = first
    kernel = args[-3]
    return 2 * batch * height * width * channels * kernel**2
