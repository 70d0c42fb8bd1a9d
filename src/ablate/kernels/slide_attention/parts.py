"""Attention over mixed neighbors in plain PyTorch, a few images at a time, instead of `triton`.

What the K² maps of keys and values take is bounded by a constant, whatever K and the batch are; the
backward pass gathers them again. Images are differentiated one part after another, in the same order
always.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ablate.kernels.slide_attention import reference
from ablate.kernels.slide_attention.inputs import Inputs

MOST = 2**26  # entries of the K² maps of keys and values that exist at a time; one image at least


def attention(inputs: Inputs, kernel: int) -> Tensor:
    """Output (B, H, W, C); see `reference`."""
    out = torch.empty_like(inputs.query)
    for part in _parts(inputs.query, kernel):
        out[part] = reference.attention(inputs.images(part), kernel)
    return out


def backward(grad: Tensor, inputs: Inputs, kernel: int) -> tuple[Tensor, ...]:
    """Gradients of the six operands; see `reference`."""
    query, key, value, mix, own, table = inputs
    of_query, of_key, of_value = (torch.empty_like(x) for x in (query, key, value))
    of_mix, of_own, of_table = (torch.zeros_like(x) for x in (mix, own, table))
    for part in _parts(query, kernel):
        found = reference.backward(grad[part], inputs.images(part), kernel)
        for whole, one in zip((of_query, of_key, of_value), found, strict=False):
            whole[part] = one
        for whole, one in zip((of_mix, of_own, of_table), found[3:], strict=True):
            whole += one
    return of_query, of_key, of_value, of_mix, of_own, of_table


def images_of(maps: Tensor, most: int, entries: int) -> Iterator[slice]:
    """Images that are combined: at most `most` entries, so many of a position; one image at least."""
    _, height, width, _ = maps.shape
    images = max(1, most // max(1, height * width * entries))
    for first in range(0, maps.shape[0], images):
        yield slice(first, first + images)


def _parts(query: Tensor, kernel: int) -> Iterator[slice]:
    return images_of(query, MOST, 2 * kernel**2 * query.shape[-1])
