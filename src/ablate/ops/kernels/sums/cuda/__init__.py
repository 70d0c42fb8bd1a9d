"""The three sums on CUDA tensors, by the form that takes fewer instructions.

Arguments as in `reference`; operands are contiguous and of one dtype, float32 or 16 bits, and sums
are taken in float32. All three gather: no two programs write one element, and the same operands
give the same bits.
"""

from __future__ import annotations

from torch import Tensor

from ablate.ops.kernels.sums.cuda.aggregate_matrix import launch_aggregate_matrix
from ablate.ops.kernels.sums.cuda.aggregate_taps import launch_aggregate_taps
from ablate.ops.kernels.sums.cuda.scores_matrix import launch_scores_matrix
from ablate.ops.kernels.sums.cuda.scores_taps import launch_scores_taps
from ablate.ops.kernels.sums.cuda.spread_matrix import launch_spread_matrix
from ablate.ops.kernels.sums.cuda.spread_taps import launch_spread_taps
from ablate.ops.kernels.tiling.launch import Launch
from ablate.ops.kernels.tiling.matrix import pays


def aggregate(
    values: Tensor, filters: Tensor, kernel: int, dilation: int, border: str, stride: int
) -> Tensor:
    """(B, H, W, C), (B, H', W', G, K²) → (B, H', W', C)."""
    launch, out = launch_aggregate(values, filters, kernel, dilation, border, stride)
    launch.run()
    return out


def scores(
    query: Tensor, key: Tensor, heads: int, kernel: int, dilation: int, border: str, stride: int
) -> Tensor:
    """(B, H', W', C), (B, H, W, C) → (B, H', W', G, K²)."""
    launch, out = launch_scores(query, key, heads, kernel, dilation, border, stride)
    launch.run()
    return out


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
    """(B, H', W', C), (B, H', W', G, K²) → (B, H, W, C): the transpose of `aggregate`."""
    launch, out = launch_spread(outputs, filters, height, width, kernel, dilation, border, stride)
    launch.run()
    return out


def launch_aggregate(
    values: Tensor, filters: Tensor, kernel: int, dilation: int, border: str, stride: int
) -> tuple[Launch, Tensor]:
    """The call that `aggregate` makes, and the tensor that it fills."""
    if pays(values, values.shape[-1] // filters.shape[3], kernel, dilation, border, stride):
        return launch_aggregate_matrix(values, filters, kernel, dilation, border)
    return launch_aggregate_taps(values, filters, kernel, dilation, border, stride)


def launch_scores(
    query: Tensor, key: Tensor, heads: int, kernel: int, dilation: int, border: str, stride: int
) -> tuple[Launch, Tensor]:
    """The call that `scores` makes, and the tensor that it fills."""
    if pays(key, key.shape[-1] // heads, kernel, dilation, border, stride):
        return launch_scores_matrix(query, key, heads, kernel, dilation, border)
    return launch_scores_taps(query, key, heads, kernel, dilation, border, stride)


def launch_spread(
    outputs: Tensor,
    filters: Tensor,
    height: int,
    width: int,
    kernel: int,
    dilation: int,
    border: str,
    stride: int,
) -> tuple[Launch, Tensor]:
    """The call that `spread` makes, and the tensor that it fills."""
    if pays(outputs, outputs.shape[-1] // filters.shape[3], kernel, dilation, border, stride):
        return launch_spread_matrix(outputs, filters, kernel, dilation, border)
    return launch_spread_taps(outputs, filters, height, width, kernel, dilation, border, stride)
