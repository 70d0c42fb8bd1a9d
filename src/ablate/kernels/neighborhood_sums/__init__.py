"""Four sums over sliding neighborhoods, as the PyTorch operators `ablate::aggregate`, … of a table below.

With n(i, t) the neighbor of position i at tap t, o(i, t) the relative offset between the two, g the
head of a channel, and the filter of a channel F' = F[i, g, t] · m[c, o(i, t)] + a[c, o(i, t)], its
static factors m and a being left out (1 and 0) or the same at every position of an image:

    aggregate   y[i, c]    = Σ_t  F' · v[n(i, t), c]
    aggregate_transpose      v[j, c]    = Σ_{i, t: n(i, t) = j}  F' · y[i, c]
    scores      s[i, g, t] = Σ_{c in g}  ( q[i, c] · m[c, o(i, t)] + a[c, o(i, t)] ) · k[n(i, t), c]
                             + b[g, o(i, t)]
    static_grad   m[c, o]    = Σ_{i, t: o(i, t) = o}  F[i, g, t] · y[i, c] · v[n(i, t), c], and a without F

The bias b may be left out too. In ELSA F is the softmax of the weights, and the static factors are the
ghost head: m = o^λ and a = γ·s. Its gradients are those of `aggregate` (`_aggregate_backward`): of the
filters by `scores`, of the values by `aggregate_transpose`, of m and a by `static_grad`. With λ = 0 and
border `zero` or `mask`, `kernels.aggregate` computes the part with a as a convolution of PyTorch, and calls
this `aggregate` with F alone.

The gradient of each of the four is computed with the others, so that derivatives of any order exist. They are
registered with fake implementations and FLOP formulas: tracing, the meta device and
`torch.utils.flop_counter` see one operator whatever computes it. `reference` computes them in plain PyTorch,
`numba` on the CPU, `triton` on CUDA.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.library import CustomOpDef
from torch.utils.flop_counter import register_flop_formula

from ablate.kernels.dispatch import implementation
from ablate.kernels.geometry import Neighborhood, strided
from ablate.kernels.neighborhood_sums import reference

__all__ = ["aggregate", "aggregate_transpose", "scores", "static_grad"]


Shape = tuple[int, ...]
_NEIGHBORHOOD = "SymInt kernel, SymInt dilation, str border, SymInt stride"  # a schema has no named tuples


def _operator(name: str, schema: str) -> Callable[[Callable[..., Any]], CustomOpDef]:
    """Register the reference as an operator; the CPU and CUDA dispatch to what `dispatch` chooses."""

    def register(compute: Callable[..., Any]) -> CustomOpDef:
        operator = torch.library.custom_op(f"ablate::{name}", compute, mutates_args=(), schema=schema)

        def dispatched(x: Tensor, *others: Any) -> Any:
            return getattr(implementation(x, "neighborhood_sums"), name)(x, *_grouped(*others))

        operator.register_kernel(("cpu", "cuda"))(dispatched)
        return operator

    return register


def _grouped(*arguments: Any) -> tuple[Any, ...]:
    """Arguments of an operator with its four scalars of the neighborhood as one `Neighborhood`."""
    border = next(place for place, argument in enumerate(arguments) if isinstance(argument, str))
    first, last = border - 2, border + 2
    return *arguments[:first], Neighborhood(*arguments[first:last]), *arguments[last:]


@_operator(
    "aggregate",
    f"(Tensor values, Tensor filters, Tensor? multiply, Tensor? add, {_NEIGHBORHOOD}) -> Tensor",
)
def aggregate(values: Tensor, *others: Any) -> Tensor:
    """(B, H, W, C), (B, H', W', G, K²), static factors (B or 1, C, offsets) → (B, H', W', C)."""
    return reference.aggregate(values, *_grouped(*others))


@_operator(
    "aggregate_transpose",
    "(Tensor outputs, Tensor filters, Tensor? multiply, Tensor? add, SymInt height, SymInt width, "
    f"{_NEIGHBORHOOD}) -> Tensor",
)
def aggregate_transpose(outputs: Tensor, *others: Any) -> Tensor:
    """(B, H', W', C), (B, H', W', G, K²), static factors (B or 1, C, offsets) → (B, H, W, C)."""
    return reference.aggregate_transpose(outputs, *_grouped(*others))


@_operator(
    "scores",
    "(Tensor query, Tensor key, Tensor? multiply, Tensor? add, Tensor? bias, SymInt heads, "
    f"{_NEIGHBORHOOD}) -> Tensor",
)
def scores(query: Tensor, *others: Any) -> Tensor:
    """(B, H', W', C), (B, H, W, C), (B or 1, C, offsets), a bias (G, offsets) → (B, H', W', G, K²)."""
    return reference.scores(query, *_grouped(*others))


@_operator(
    "static_grad",
    f"(Tensor outputs, Tensor values, Tensor filters, {_NEIGHBORHOOD}, bool shared=False)"
    " -> (Tensor, Tensor)",
)
def static_grad(outputs: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    """(B, H', W', C), (B, H, W, C), (B, H', W', G, K²) → of multiply and of add, (B, C, offsets) each.

    `shared` by all images, they are summed over the batch: (1, C, offsets).
    """
    return reference.static_grad(outputs, *_grouped(*others))


@aggregate.register_fake
def _(values: Tensor, filters: Tensor, *others: Any) -> Tensor:
    _, height, width, channels = values.shape
    stride = others[-1]
    return values.new_empty(values.shape[0], strided(height, stride), strided(width, stride), channels)


@aggregate_transpose.register_fake
def _(outputs: Tensor, filters: Tensor, multiply: Any, add: Any, height: int, width: int, *_: Any) -> Tensor:
    return outputs.new_empty(outputs.shape[0], height, width, outputs.shape[-1])


@scores.register_fake
def _(query: Tensor, *others: Any) -> Tensor:
    *_, heads, kernel, _, _, _ = others
    return query.new_empty(*query.shape[:3], heads, kernel * kernel)


@static_grad.register_fake
def _(outputs: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    _, _, neighborhood, *shared = _grouped(*others)
    images = 1 if shared == [True] else outputs.shape[0]
    shape = images, outputs.shape[-1], neighborhood.offsets
    return outputs.new_empty(shape), outputs.new_empty(shape)


def _save_aggregate(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    values, filters, multiply, add, *ctx.neighborhood = inputs
    ctx.save_for_backward(values, filters, multiply, add)


def _aggregate_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    values, filters, multiply, add = ctx.saved_tensors
    grad = grad.contiguous()
    of_values = of_filters = None
    if ctx.needs_input_grad[0]:
        of_values = aggregate_transpose(grad, filters, multiply, add, *values.shape[1:3], *ctx.neighborhood)
    if ctx.needs_input_grad[1]:
        of_filters = scores(grad, values, multiply, None, None, filters.shape[3], *ctx.neighborhood)
    of_static = _static_gradients(ctx, grad, values, filters, multiply, add)
    return (of_values, of_filters, *of_static, *[None] * 4)


def _save_aggregate_transpose(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    outputs, filters, multiply, add, _, _, *ctx.neighborhood = inputs
    ctx.save_for_backward(outputs, filters, multiply, add)


def _aggregate_transpose_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    outputs, filters, multiply, add = ctx.saved_tensors
    grad = grad.contiguous()
    of_outputs = of_filters = None
    if ctx.needs_input_grad[0]:
        of_outputs = aggregate(grad, filters, multiply, add, *ctx.neighborhood)
    if ctx.needs_input_grad[1]:
        of_filters = scores(outputs, grad, multiply, None, None, filters.shape[3], *ctx.neighborhood)
    of_static = _static_gradients(ctx, outputs, grad, filters, multiply, add)
    return (of_outputs, of_filters, *of_static, *[None] * 6)


def _static_gradients(
    ctx: Any, outputs: Tensor, values: Tensor, filters: Tensor, multiply: Tensor | None, add: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of inputs 2 and 3, the static factors, where they exist and need one."""
    if not any(ctx.needs_input_grad[2:4]):
        return None, None
    shared = all(static.shape[0] == 1 for static in (multiply, add) if static is not None)
    found = static_grad(outputs, values, filters, *ctx.neighborhood, shared)
    of_multiply, of_add = (
        None if static is None else gradient.sum_to_size(static.shape)
        for gradient, static in zip(found, (multiply, add), strict=True)
    )
    return of_multiply, of_add


def _save_scores(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    query, key, multiply, add, _, _, *ctx.neighborhood = inputs
    ctx.save_for_backward(query, key, multiply, add)


def _scores_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """A term with `add` is one of a query of ones with `multiply`."""
    query, key, multiply, add = ctx.saved_tensors
    grad = grad.contiguous()
    ones = None if add is None else torch.ones_like(query)
    of_query = of_key = of_multiply = of_add = of_bias = None
    if ctx.needs_input_grad[0]:
        of_query = aggregate(key, grad, multiply, None, *ctx.neighborhood)
    if ctx.needs_input_grad[1]:
        of_key = aggregate_transpose(query, grad, multiply, None, *key.shape[1:3], *ctx.neighborhood)
        if ones is not None:
            of_key = of_key + aggregate_transpose(ones, grad, add, None, *key.shape[1:3], *ctx.neighborhood)
    if ctx.needs_input_grad[2]:
        of_multiply = static_grad(query, key, grad, *ctx.neighborhood, multiply.shape[0] == 1)[0]
    if ones is not None and ctx.needs_input_grad[3]:
        of_add = static_grad(ones, key, grad, *ctx.neighborhood, add.shape[0] == 1)[0]
    if ctx.needs_input_grad[4]:
        of_bias = _by_offset(grad, key.shape, Neighborhood(*ctx.neighborhood))
    return (of_query, of_key, of_multiply, of_add, of_bias, *[None] * 5)


def _by_offset(grad: Tensor, key: torch.Size, neighborhood: Neighborhood) -> Tensor:
    """(B, H', W', G, K²) → (G, offsets), sums over what has one offset."""
    exact = torch.promote_types(grad.dtype, torch.float32)
    if neighborhood.border != "inside":  # tap t has offset t everywhere
        return grad.sum((0, 1, 2), dtype=exact).to(grad.dtype)
    by_position, heads = grad.sum(0, keepdim=True, dtype=exact), grad.shape[3]
    outputs = by_position.new_ones(*by_position.shape[:4])  # one channel a head
    values = by_position.new_ones(1, *key[1:3], heads)
    found, _ = static_grad(outputs, values, by_position, *neighborhood)
    return found[0].to(grad.dtype)


def _save_static_grad(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    outputs, values, filters, *ctx.neighborhood, _ = inputs
    ctx.save_for_backward(outputs, values, filters)


def _static_grad_backward(ctx: Any, of_multiply: Tensor, of_add: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of the two tables are static factors in their turn."""
    outputs, values, filters = ctx.saved_tensors
    of_multiply, of_add = of_multiply.contiguous(), of_add.contiguous()
    of_outputs = of_values = of_filters = None
    if ctx.needs_input_grad[0]:
        of_outputs = aggregate(values, filters, of_multiply, of_add, *ctx.neighborhood)
    if ctx.needs_input_grad[1]:
        of_values = aggregate_transpose(
            outputs, filters, of_multiply, of_add, *values.shape[1:3], *ctx.neighborhood
        )
    if ctx.needs_input_grad[2]:
        of_filters = scores(outputs, values, of_multiply, None, None, filters.shape[3], *ctx.neighborhood)
    return (of_outputs, of_values, of_filters, *[None] * 5)


aggregate.register_autograd(_aggregate_backward, setup_context=_save_aggregate)
aggregate_transpose.register_autograd(_aggregate_transpose_backward, setup_context=_save_aggregate_transpose)
scores.register_autograd(_scores_backward, setup_context=_save_scores)
static_grad.register_autograd(_static_grad_backward, setup_context=_save_static_grad)


# Two FLOPs per channel and tap of every strided position, and two for a static filter that is added: it
# counts as the depthwise convolution that it is; so does one that is added to the queries of `scores`.
# Multiplying, and a bias, once for a tap, count as nothing.


@register_flop_formula(torch.ops.ablate.aggregate)
def _aggregate_flops(values: Shape, filters: Shape, multiply: Any, add: Any, *_: Any, **__: Any) -> int:
    outputs = filters[:3]
    return (2 if add is None else 4) * math.prod(outputs) * values[-1] * filters[-1]


@register_flop_formula(torch.ops.ablate.aggregate_transpose)
def _aggregate_transpose_flops(
    outputs: Shape, filters: Shape, multiply: Any, add: Any, *_: Any, **__: Any
) -> int:
    return (2 if add is None else 4) * math.prod(outputs) * filters[-1]


@register_flop_formula(torch.ops.ablate.scores)
def _scores_flops(query: Shape, key: Shape, multiply: Any, add: Any, *others: Any, **_: Any) -> int:
    kernel = others[2]
    return (2 if add is None else 4) * math.prod(query) * kernel**2


@register_flop_formula(torch.ops.ablate.static_grad)
def _static_grad_flops(outputs: Shape, values: Shape, filters: Shape, *_: Any, **__: Any) -> int:
    return 4 * math.prod(outputs) * filters[-1]
