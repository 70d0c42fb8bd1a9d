"""Neighborhood attention on CUDA tensors: scores, softmax and sum in one pass, gradients in three.

(Hassani et al., 2023, where the border is `inside`; tiles in the manner of FlashAttention, Dao et
al., 2022.) The K² weights of a position never reach memory: backward they are computed again from
the logarithm of their sum. No two programs add to the same element: the same operands give the same
bits. Arguments as in `reference`; maps are contiguous and of one dtype, and products are summed in float32.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ablate.kernels.geometry import Neighborhood
from ablate.kernels.neighborhood_attention import WIDEST, reference
from ablate.kernels.neighborhood_attention.inputs import Inputs
from ablate.kernels.neighborhood_attention.triton.bias import launch_bias_gradient, summed
from ablate.kernels.neighborhood_attention.triton.forward import launch_attention
from ablate.kernels.neighborhood_attention.triton.keys import launch_key_gradients
from ablate.kernels.neighborhood_attention.triton.queries import launch_query_gradient
from ablate.kernels.selfcheck import Operands, checked


def _forward_arguments(found: Operands) -> tuple[Any, ...] | None:
    neighborhood = found.neighborhood
    too_wide = found.case.head_width > WIDEST[found.values.dtype]
    if neighborhood.stride > 1 or neighborhood.border == "reflect" or too_wide:
        return None
    maps = found.outputs, found.values, found.values.flip(1)
    return Inputs(*maps, found.bias.float(), found.axial), neighborhood


def _backward_arguments(found: Operands) -> tuple[Any, ...] | None:
    if (arguments := _forward_arguments(found)) is None:
        return None
    inputs, neighborhood = arguments
    return found.values.flip(2), inputs, *reference.attention(*arguments), neighborhood


@checked(reference.attention, _forward_arguments)
def attention(
    inputs: Inputs,
    neighborhood: Neighborhood,
) -> tuple[Tensor, Tensor]:
    """Output (B, H, W, C), and the rows' logarithms (B, heads, H, W) in float32."""
    launch, out, rows = launch_attention(inputs, neighborhood)
    launch.run()
    return out, rows


@checked(reference.backward, _backward_arguments)
def backward(
    grad: Tensor,
    inputs: Inputs,
    out: Tensor,
    rows: Tensor,
    neighborhood: Neighborhood,
    bias_gradient: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value, bias (empty without `bias_gradient`) and axial (empty without it)."""
    launch, grad_query, product, grad_axial = launch_query_gradient(grad, inputs, out, rows, neighborhood)
    launch.run()
    launch, grad_key, grad_value = launch_key_gradients(grad, inputs, rows, product, neighborhood)
    launch.run()
    grad_bias = inputs.bias.new_empty(0)
    if bias_gradient:
        launch, partial = launch_bias_gradient(grad, inputs, rows, product, neighborhood)
        launch.run()
        grad_bias = summed(partial).to(inputs.bias.dtype)
    if grad_axial is None:
        grad_axial = inputs.query.new_empty(0)
    return grad_query, grad_key, grad_value, grad_bias, grad_axial


KERNELS = (attention, backward)
