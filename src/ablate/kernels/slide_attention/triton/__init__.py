"""Attention over mixed neighbors on CUDA tensors: one pass forward, three backward, no map of a tap.

Positions of all images follow each other; a program has 64 of them and one head. What pairs them with
one of their neighbors are two products of matrices, channels by taps and taps by channels, so that
tensor cores do nearly all of it. Backward a position's weights and their slopes, a number for each head
and tap, are written once and read by two kernels: of a few images at a time, so that they stay in the L2
cache. No two programs add to the same element: the same operands give the same bits. Arguments as in
`reference`; maps are contiguous and of one dtype, and products are summed in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ablate.kernels.selfcheck import Operands, checked
from ablate.kernels.slide_attention import LARGEST, WIDEST, parts
from ablate.kernels.slide_attention.inputs import Inputs
from ablate.kernels.slide_attention.triton.filters import launch_filter_gradient
from ablate.kernels.slide_attention.triton.forward import launch_attention
from ablate.kernels.slide_attention.triton.keys import launch_key_gradients
from ablate.kernels.slide_attention.triton.positions import Mixture
from ablate.kernels.slide_attention.triton.queries import launch_query_gradient

MOST = 2**24  # entries of weights and slopes that exist at a time; one image at least


def _arguments(found: Operands) -> tuple[Any, ...] | None:
    kernel, *rest = found.neighborhood
    too_large = kernel > LARGEST or found.case.head_width > WIDEST[found.values.dtype]
    if rest != [1, "zero", 1] or too_large:
        return None
    maps = found.outputs / 4, found.values, found.values.flip(1)
    return Inputs(*maps, found.mix, found.mix[..., 0].contiguous(), found.bias), kernel


def _backward_arguments(found: Operands) -> tuple[Any, ...] | None:
    return None if (arguments := _arguments(found)) is None else (found.values.flip(2), *arguments)


@checked(parts.attention, _arguments)
def attention(inputs: Inputs, kernel: int) -> Tensor:
    """Output (B, H, W, C)."""
    query, key, value, mix, own, table = inputs
    launch, out = launch_attention(query, key, value, Mixture.of(mix, own, table, kernel, query.dtype))
    launch.run()
    return out


@checked(parts.backward, _backward_arguments)
def backward(grad: Tensor, inputs: Inputs, kernel: int) -> tuple[Tensor, ...]:
    """Gradients of the six operands, some images after the others."""
    query, key, value, mix, own, table = inputs
    mixture = Mixture.of(mix, own, table, kernel, query.dtype)
    of_maps = [torch.empty_like(x) for x in (query, key, value)]
    of_filters = torch.zeros_like(mixture.filters, dtype=torch.float32)
    of_table = torch.zeros_like(mixture.table)
    for images in parts.images_of(query, MOST, 2 * mixture.table.numel()):
        given = grad[images], query[images], key[images], value[images]
        of_query, of_key, of_value = (x[images] for x in of_maps)
        launch, numbers, by_tile = launch_query_gradient(*given, mixture, of_query)
        launch.run()
        launch_key_gradients(*given[:2], mixture, numbers, of_key, of_value).run()
        launch, by_part = launch_filter_gradient(*given, mixture, numbers)
        launch.run()
        of_filters += by_part.sum((0, 1))
        of_table += by_tile.sum(0)
    of_query, of_key, of_value = of_maps
    of_mix, of_own = mixture.unfilled(of_filters)
    return (
        *(of_query, of_key, of_value, of_mix.to(mix.dtype), of_own.to(own.dtype)),
        of_table[:, : kernel**2].contiguous().to(table.dtype),
    )


KERNELS = (attention, backward)
