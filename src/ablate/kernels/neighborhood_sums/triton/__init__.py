"""The four sums on CUDA tensors, by the form that takes fewer instructions.

Arguments as in `reference`; operands are contiguous and of one dtype, float32 or 16 bits, and sums
are taken in float32. No two programs add to the same element; the order of additions is therefore
fixed, and the same operands give the same bits.
"""

from __future__ import annotations

from torch import Tensor

from ablate.kernels._triton.launch import Launch
from ablate.kernels._triton.matrix import pays
from ablate.kernels.geometry import Neighborhood
from ablate.kernels.neighborhood_sums import reference
from ablate.kernels.neighborhood_sums.triton.aggregate_matrix import launch_aggregate_matrix
from ablate.kernels.neighborhood_sums.triton.aggregate_taps import launch_aggregate_taps
from ablate.kernels.neighborhood_sums.triton.aggregate_transpose_matrix import (
    launch_aggregate_transpose_matrix,
)
from ablate.kernels.neighborhood_sums.triton.aggregate_transpose_taps import launch_aggregate_transpose_taps
from ablate.kernels.neighborhood_sums.triton.scores_matrix import launch_scores_matrix
from ablate.kernels.neighborhood_sums.triton.scores_taps import launch_scores_taps
from ablate.kernels.neighborhood_sums.triton.static_grad_taps import launch_static_grad, summed
from ablate.kernels.selfcheck import checked


@checked(
    reference.aggregate,
    lambda found: (found.values, found.filters, found.multiply, found.add, found.neighborhood),
)
def aggregate(
    values: Tensor,
    filters: Tensor,
    multiply: Tensor | None,
    add: Tensor | None,
    neighborhood: Neighborhood,
) -> Tensor:
    """(B, H, W, C), (B, H', W', G, K²), static factors (B or 1, C, offsets) → (B, H', W', C)."""
    launch, out = launch_aggregate(values, filters, multiply, add, neighborhood)
    launch.run()
    return out


@checked(
    reference.aggregate_transpose,
    lambda found: (
        *(found.outputs, found.filters, found.multiply, found.add),
        *(*found.values.shape[1:3], found.neighborhood),
    ),
)
def aggregate_transpose(
    outputs: Tensor,
    filters: Tensor,
    multiply: Tensor | None,
    add: Tensor | None,
    height: int,
    width: int,
    neighborhood: Neighborhood,
) -> Tensor:
    """(B, H', W', C), (B, H', W', G, K²), static factors (B or 1, C, offsets) → (B, H, W, C)."""
    launch, out = launch_aggregate_transpose(outputs, filters, multiply, add, height, width, neighborhood)
    launch.run()
    return out


@checked(
    reference.scores,
    lambda found: (
        *(found.outputs, found.values, found.multiply, found.add),
        *(found.bias.to(found.values.dtype), len(found.bias), found.neighborhood),
    ),
)
def scores(
    query: Tensor,
    key: Tensor,
    multiply: Tensor | None,
    add: Tensor | None,
    bias: Tensor | None,
    heads: int,
    neighborhood: Neighborhood,
) -> Tensor:
    """(B, H', W', C), (B, H, W, C), (B or 1, C, offsets), (G, offsets) → (B, H', W', G, K²)."""
    launch, out = launch_scores(query, key, multiply, add, bias, heads, neighborhood)
    launch.run()
    return out


@checked(
    reference.static_grad,
    lambda found: (found.outputs, found.values, found.filters, found.neighborhood, found.case.multiply == 1),
)
def static_grad(
    outputs: Tensor,
    values: Tensor,
    filters: Tensor,
    neighborhood: Neighborhood,
    shared: bool = False,
) -> tuple[Tensor, Tensor]:
    """(B, H', W', C), (B, H, W, C), (B, H', W', G, K²) → (B or 1, C, offsets) twice; see `reference`."""
    launch, partial = launch_static_grad(outputs, values, filters, neighborhood)
    launch.run()
    return summed(partial, outputs.dtype, shared)


KERNELS = (aggregate, aggregate_transpose, scores, static_grad)


def launch_aggregate(
    values: Tensor,
    filters: Tensor,
    multiply: Tensor | None,
    add: Tensor | None,
    neighborhood: Neighborhood,
) -> tuple[Launch, Tensor]:
    """The call that `aggregate` makes, and the tensor that it fills."""
    head_width = values.shape[-1] // filters.shape[3]
    if multiply is None and add is None and pays(values, head_width, neighborhood):
        return launch_aggregate_matrix(values, filters, neighborhood)
    return launch_aggregate_taps(values, filters, multiply, add, neighborhood)


def launch_aggregate_transpose(
    outputs: Tensor,
    filters: Tensor,
    multiply: Tensor | None,
    add: Tensor | None,
    height: int,
    width: int,
    neighborhood: Neighborhood,
) -> tuple[Launch, Tensor]:
    """The call that `aggregate_transpose` makes, and the tensor that it fills."""
    head_width = outputs.shape[-1] // filters.shape[3]
    if multiply is None and add is None and pays(outputs, head_width, neighborhood):
        return launch_aggregate_transpose_matrix(outputs, filters, neighborhood)
    return launch_aggregate_transpose_taps(outputs, filters, multiply, add, height, width, neighborhood)


def launch_scores(
    query: Tensor,
    key: Tensor,
    multiply: Tensor | None,
    add: Tensor | None,
    bias: Tensor | None,
    heads: int,
    neighborhood: Neighborhood,
) -> tuple[Launch, Tensor]:
    """The call that `scores` makes, and the tensor that it fills."""
    head_width = key.shape[-1] // heads
    if multiply is None and add is None and pays(key, head_width, neighborhood):
        return launch_scores_matrix(query, key, bias, heads, neighborhood)
    return launch_scores_taps(query, key, multiply, add, bias, heads, neighborhood)
