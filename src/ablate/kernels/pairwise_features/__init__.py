"""Features of pairs of positions between batch norms, computed in parts so that no pairs are stored.

Of small networks on a neighborhood's pairs (SAN):

    pairs:    F_ij = softmax_j( W₂ relu(W₁ h_ij + c₁) + c₂ ),   h_ij = relu(a_i − b_j)
    patches:  y_i = Σ_t W_t relu(s_t b_{n(i,t)} + u_t)

`pair_filters` and `patch_features` are operators with gradients and FLOP counts. So is `pair_moments`, the
mean and covariance of h: a batch norm of W₁h needs only these two. `statistics` has the mean and variance of
the inputs of relu. Loops over `parts` compute them in the dtype of the maps, on a CPU as on CUDA. They refuse
a second derivative: that is for the plain form, which the operators of `zoo.san` are written in.

`attend` is attention with normalised similarities (LESA), and `of_similarities` has their statistics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ablate.kernels.pairwise_features import pairs, patches
from ablate.kernels.pairwise_features.parts import inner, totals
from ablate.kernels.pairwise_features.similarities import attend
from ablate.kernels.pairwise_features.statistics import (
    normalization,
    of_differences,
    of_similarities,
    of_taps,
)
from ablate.kernels.precision import as_declared

__all__ = [
    "attend",
    "normalization",
    "of_differences",
    "of_similarities",
    "of_taps",
    "pair_filters",
    "pair_moments",
    "patch_features",
]


@torch.library.custom_op("ablate::pair_moments", mutates_args=())
def pair_moments(own: Tensor, neighbor: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    """Mean (C,) and covariance (C, C) of h over all pairs, in float64.

    Args:
        own: a, (B, C, H, W).
        neighbor: b, padded, (B, C, H + K − 1, W + K − 1).
        kernel: K, odd.
    """
    with as_declared(own):
        return pairs.moments(own, neighbor, kernel)


@torch.library.custom_op("ablate::pair_moments_backward", mutates_args=())
def _pair_moments_backward(
    of_mean: Tensor, of_covariance: Tensor, mean: Tensor, own: Tensor, neighbor: Tensor, kernel: int
) -> tuple[Tensor, Tensor]:
    with as_declared(own):
        return pairs.moments_backward(of_mean, of_covariance, mean, own, neighbor, kernel)


@torch.library.custom_op("ablate::pair_filters", mutates_args=())
def pair_filters(
    own: Tensor, neighbor: Tensor, reduce: Tensor, shift: Tensor, expand: Tensor, bias: Tensor, kernel: int
) -> Tensor:
    """F, (B, H, W, G, K²), in the dtype of `own`.

    Args:
        own: a, (B, C, H, W).
        neighbor: b, padded, (B, C, H + K − 1, W + K − 1).
        reduce: W₁, (R, C).
        shift: c₁, (R,).
        expand: W₂, (G, R).
        bias: c₂, (G,).
        kernel: K, odd.
    """
    with as_declared(own):
        return pairs.filters(own, neighbor, reduce, shift, expand, bias, kernel)


@torch.library.custom_op("ablate::pair_filters_backward", mutates_args=())
def _pair_filters_backward(
    grad: Tensor, filters: Tensor, own: Tensor, neighbor: Tensor, weights: Sequence[Tensor], kernel: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    with as_declared(own):
        return pairs.filters_backward(grad, filters, own, neighbor, weights, kernel)


@torch.library.custom_op("ablate::patch_features", mutates_args=())
def patch_features(neighbor: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, kernel: int) -> Tensor:
    """y, (B, G, H, W), in the dtype of `neighbor`.

    Args:
        neighbor: b, padded, (B, C, H + K − 1, W + K − 1).
        scale: s, (C, K, K).
        shift: u, (C, K, K).
        weight: W, (G, C, K, K).
        kernel: K, odd.
    """
    with as_declared(neighbor):
        return patches.features(neighbor, scale, shift, weight, kernel)


@torch.library.custom_op("ablate::patch_features_backward", mutates_args=())
def _patch_features_backward(
    grad: Tensor, neighbor: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, kernel: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    with as_declared(neighbor):
        return patches.features_backward(grad, neighbor, scale, shift, weight, kernel)


@pair_moments.register_fake
def _(own: Tensor, neighbor: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    channels = own.shape[1]
    return (
        own.new_empty(channels, dtype=torch.float64),
        own.new_empty(channels, channels, dtype=torch.float64),
    )


@_pair_moments_backward.register_fake
def _(
    of_mean: Tensor, of_covariance: Tensor, mean: Tensor, own: Tensor, neighbor: Tensor, kernel: int
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(own), torch.empty_like(neighbor)


@pair_filters.register_fake
def _(own: Tensor, neighbor: Tensor, reduce: Tensor, shift: Tensor, expand: Tensor, *args: Any) -> Tensor:
    batch, _, height, width = own.shape
    return own.new_empty(batch, height, width, expand.shape[0], args[-1] ** 2)


@_pair_filters_backward.register_fake
def _(
    grad: Tensor, filters: Tensor, own: Tensor, neighbor: Tensor, weights: Sequence[Tensor], kernel: int
) -> tuple[Tensor, ...]:
    return torch.empty_like(own), torch.empty_like(neighbor), *totals(*weights)


@patch_features.register_fake
def _(neighbor: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, kernel: int) -> Tensor:
    return neighbor.new_empty(neighbor.shape[0], weight.shape[0], *inner(neighbor, kernel))


@_patch_features_backward.register_fake
def _(grad: Tensor, neighbor: Tensor, *operands: Any) -> tuple[Tensor, ...]:
    return torch.empty_like(neighbor), *totals(*operands[:3])


def _save_moments(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    own, neighbor, ctx.kernel = inputs
    ctx.save_for_backward(output[0], own, neighbor)


def _moments_gradients(ctx: Any, of_mean: Tensor, of_covariance: Tensor) -> tuple[Tensor | None, ...]:
    return (*_pair_moments_backward(of_mean, of_covariance, *ctx.saved_tensors, ctx.kernel), None)


def _save_filters(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *operands, ctx.kernel = inputs
    ctx.save_for_backward(output, *operands)


def _filters_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    filters, own, neighbor, *weights = ctx.saved_tensors
    return (*_pair_filters_backward(grad, filters, own, neighbor, weights, ctx.kernel), None)


def _save_features(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *operands, ctx.kernel = inputs
    ctx.save_for_backward(*operands)


def _features_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return (*_patch_features_backward(grad, *ctx.saved_tensors, ctx.kernel), None)


def _no_second_derivative(ctx: Any, *_: Any) -> tuple[None, ...]:
    raise RuntimeError(
        "SAN's filters have no second derivative when they are made in parts: compute in float64, or with "
        "infra.kernels=reference, where you need one"
    )


pair_moments.register_autograd(_moments_gradients, setup_context=_save_moments)
pair_filters.register_autograd(_filters_gradients, setup_context=_save_filters)
patch_features.register_autograd(_features_gradients, setup_context=_save_features)
for _backward in (_pair_moments_backward, _pair_filters_backward, _patch_features_backward):
    _backward.register_autograd(_no_second_derivative)


# Two matrix products for each pair, one for each patch, twice that for their gradients: as of the plain form.
# What is computed again counts as nothing, nor do moments, which only batch norms ask for.


@register_flop_formula(torch.ops.ablate.pair_filters)
def _filters_flops(
    own: tuple[int, ...],
    neighbor: tuple[int, ...],
    reduce: tuple[int, ...],
    shift: tuple[int, ...],
    expand: tuple[int, ...],
    *args: Any,
    out_shape: Any = None,
    **kwargs: Any,
) -> int:
    batch, _, height, width = own
    return 2 * batch * height * width * args[-1] ** 2 * (math.prod(reduce) + math.prod(expand))


@register_flop_formula(torch.ops.ablate.pair_filters_backward)
def _filters_backward_flops(
    grad: tuple[int, ...],
    filters: tuple[int, ...],
    own: tuple[int, ...],
    neighbor: tuple[int, ...],
    weights: Sequence[tuple[int, ...]],
    kernel: int,
    *,
    out_shape: Any = None,
) -> int:
    return 2 * _filters_flops(own, neighbor, *weights, kernel)


@register_flop_formula(torch.ops.ablate.patch_features)
def _features_flops(
    neighbor: tuple[int, ...],
    scale: tuple[int, ...],
    shift: tuple[int, ...],
    weight: tuple[int, ...],
    kernel: int,
    *args: Any,
    out_shape: Any = None,
    **kwargs: Any,
) -> int:
    batch, _, height, width = neighbor
    return 2 * batch * (height - kernel + 1) * (width - kernel + 1) * math.prod(weight)


@register_flop_formula(torch.ops.ablate.patch_features_backward)
def _features_backward_flops(
    grad: tuple[int, ...], *operands: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    return 2 * _features_flops(*operands)
