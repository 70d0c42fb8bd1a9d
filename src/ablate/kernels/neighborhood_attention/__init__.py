"""Softmax attention over sliding neighborhoods in one pass, as the PyTorch operator `ablate::attention`.

A fast implementation keeps only the logarithm of each row's sum, never the K² weights; the backward
pass computes them again, and a second derivative is refused. Where there is none, for this device,
precision or width of a head, `attention` below composes scores, softmax and sum, which differentiate
any number of times. Both are compared with `reference`.
"""

from __future__ import annotations

import math
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ablate.kernels import neighborhood_sums as sums
from ablate.kernels._triton.matrix import SIDE, SPAN
from ablate.kernels.dispatch import fast, implementation
from ablate.kernels.geometry import Neighborhood, Sliding
from ablate.kernels.neighborhood_attention import reference
from ablate.kernels.neighborhood_attention.inputs import Inputs
from ablate.kernels.precision import in_autocast

__all__ = ["attention"]

WIDTH = 16  # the loops of the CPU take heads of a multiple of this many channels
WIDEST = {torch.float32: 32, torch.bfloat16: 64, torch.float16: 64}  # channels of a head: a GPU's registers


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    *,
    axial: Tensor | None = None,
    **sliding: Unpack[Sliding],
) -> Tensor:
    """y_i = Σ_t softmax_t( q_i · k_{n(i,t)} + bias[g, offset(i, t)] ) v_{n(i,t)} for each head g.

    With `axial`, the logits gain what each query has for the neighbor's row offset and for its column
    offset: q_i·r_Δ where r is one vector of rows and one of columns (SASA, Ramachandran et al., 2019).

    Under border `zero`, taps outside the map have key and value 0 and take part; under `mask` they
    do not; under `inside` there are none.

    Args:
        query: (B, H, W, C), scaled as its logits are to be.
        key: (B, H, W, C).
        value: (B, H, W, C).
        bias: (heads, offsets), heads dividing C.
        axial: (B, H, W, heads, 2 · offsets per axis), rows first.
        sliding: `kernel`, and `dilation` and `border` (zero, mask or inside); see `Neighborhood`.

    Returns:
        (B, H, W, C) in the dtype of `value`, or of autocast.

    Raises:
        TypeError: a stride: every position has a query.
    """
    value = in_autocast(value)
    query, key, value = (x.to(value.dtype).contiguous() for x in (query, key, value))
    neighborhood = Neighborhood(**sliding)
    if neighborhood.stride != 1:
        raise TypeError(
            f"attention() has no form with stride={neighborhood.stride}: every position is a query"
        )
    if fused(query, bias.shape[0], neighborhood.kernel, neighborhood.border):
        axial = None if axial is None else axial.to(value.dtype).contiguous()
        return _attention(query, key, value, bias.contiguous(), axial, *neighborhood[:3])[0]
    scores = sums.scores(query, key, None, None, None, bias.shape[0], *neighborhood)
    weights = reference.logits(scores, bias, axial, neighborhood).softmax(-1).to(value.dtype)
    return sums.aggregate(value, weights.contiguous(), None, None, *neighborhood)


def fused(query: Tensor, heads: int, kernel: int, border: str) -> bool:
    """Return True if one fused kernel computes attention with these queries."""
    if not fast(query) or border == "reflect":
        return False
    width = query.shape[-1] // heads
    if query.device.type == "cpu":
        return width % WIDTH == 0
    return width <= WIDEST.get(query.dtype, 0) and SIDE + kernel - 1 <= SPAN


# A schema has no named tuples: it lists the tensors of `Inputs`, and the numbers of the neighborhood.
_INPUTS = "Tensor query, Tensor key, Tensor value, Tensor bias, Tensor? axial"
_NEIGHBORHOOD = "SymInt kernel, SymInt dilation, str border"


@torch.library.custom_op(
    "ablate::attention", mutates_args=(), schema=f"({_INPUTS}, {_NEIGHBORHOOD}) -> (Tensor, Tensor)"
)
def _attention(query: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    """Output, and (B, heads, H, W) logarithms of the rows' sums."""
    return reference.attention(Inputs(query, *others[:4]), Neighborhood(*others[4:]))


@torch.library.custom_op(
    "ablate::attention_backward",
    mutates_args=(),
    schema=f"(Tensor grad, {_INPUTS}, Tensor out, Tensor rows, {_NEIGHBORHOOD}, bool bias_gradient=True) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _backward(grad: Tensor, *others: Any) -> tuple[Tensor, ...]:
    """Gradients of query, key, value, bias and axial.

    That of bias is empty without `bias_gradient`, that of axial where there is no axial.
    """
    return reference.backward(grad, *_grouped(*others))


def _grouped(*arguments: Any) -> tuple[Any, ...]:
    """Arguments of `_backward` as its implementations take them."""
    inputs, (out, rows), neighborhood = arguments[:5], arguments[5:7], arguments[7:10]
    return Inputs(*inputs), out, rows, Neighborhood(*neighborhood), *arguments[10:]


@_attention.register_kernel(("cpu", "cuda"))
def _(query: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    module = implementation(query, "neighborhood_attention")
    return module.attention(Inputs(query, *others[:4]), Neighborhood(*others[4:]))


@_backward.register_kernel(("cpu", "cuda"))
def _(grad: Tensor, *others: Any) -> tuple[Tensor, ...]:
    return implementation(grad, "neighborhood_attention").backward(grad, *_grouped(*others))


@_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    batch, height, width, _ = query.shape
    rows = query.new_empty(batch, bias.shape[0], height, width, dtype=reference.row_type(query.dtype))
    return query.new_empty(query.shape), rows


@_backward.register_fake
def _(grad: Tensor, *others: Any) -> tuple[Tensor, ...]:
    inputs, _, _, _, *bias_gradient = _grouped(*others)
    of_maps = [x.new_empty(x.shape) for x in inputs[:3]]
    of_bias = inputs.bias.new_empty(0 if bias_gradient == [False] else inputs.bias.shape)
    of_axial = inputs.query.new_empty(0 if inputs.axial is None else inputs.axial.shape)
    return *of_maps, of_bias, of_axial


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, bias, axial, *ctx.neighborhood = inputs
    ctx.save_for_backward(query, key, value, bias, axial, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 8
    saved = ctx.saved_tensors  # read once: under activation checkpointing a second reading is refused
    needs_bias = ctx.needs_input_grad[3]
    *of_maps, of_bias, of_axial = _backward(grad.contiguous(), *saved, *ctx.neighborhood, needs_bias)
    has_axial = saved[4] is not None
    return (*of_maps, of_bias if needs_bias else None, of_axial if has_axial else None, None, None, None)


def _no_second_derivative(ctx: Any, *_: Any) -> tuple[None, ...]:
    raise RuntimeError(
        "ablate::attention has no second derivative: compose ablate.kernels.scores, a softmax and "
        "ablate.kernels.aggregate where you need one"
    )


_attention.register_autograd(_gradients, setup_context=_save)
_backward.register_autograd(_no_second_derivative)


@register_flop_formula(torch.ops.ablate.attention)
def _flops(query: tuple[int, ...], *others: Any, **_: Any) -> int:
    """Two FLOPs per channel and tap for the scores, two for the sum."""
    return 4 * math.prod(query) * others[4] ** 2


@register_flop_formula(torch.ops.ablate.attention_backward)
def _backward_flops(grad: tuple[int, ...], *others: Any, **_: Any) -> int:
    """Four sums: those of weights and values, and one each for query and key."""
    return 8 * math.prod(grad) * others[7] ** 2
