"""Sums over sliding neighbourhoods, as functions on channels-last tensors.

`geometry` says which positions a neighbourhood reaches, `reference` computes the sums in plain
PyTorch, `cpu` in loops compiled by Numba over `walks`, `cuda` in Triton, not dispatched to yet;
`registration` makes them PyTorch operators with gradients and FLOP counts, `attention` is scores,
softmax and sum in one pass, `choice` says which implementation runs and why. Used by `ablate.ops`
only, through the functions below.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ablate.ops.kernels import registration
from ablate.ops.kernels.attention import attention
from ablate.ops.kernels.choice import use
from ablate.ops.kernels.geometry import strided

__all__ = ["aggregate", "attention", "scores", "use"]


def aggregate(
    values: Tensor,
    filters: Tensor,
    *,
    kernel: int,
    dilation: int = 1,
    border: str = "zero",
    stride: int = 1,
    multiply: Tensor | None = None,
    add: Tensor | None = None,
) -> Tensor:
    """y[i, c] = Σ_t (multiply[c, t] · F[i, g(c), t] + add[c, t]) · v[n(i, t), c].

    Channels belong to heads in contiguous blocks. Filters and both static factors broadcast over
    batch and positions: a filter of shape (1, 1, 1, G, K²) is the same at every position. With a
    stride, i runs over H' = ⌈H / stride⌉ rows and W' columns.

    Args:
        values: (B, H, W, C).
        filters: (B or 1, H' or 1, W' or 1, G, K²), G dividing C.
        kernel: K, odd; `dilation`: distance of two taps; `border`: zero, mask, inside
            or reflect.
        multiply: (B or 1, H' or 1, W' or 1, C, K²), such as the ghost head's o^λ.
        add: the same, such as the ghost head's γ·s.

    Returns:
        (B, H', W', C) in the dtype of `values`.
    """
    neighborhood = (kernel, dilation, border, stride)
    filters = filters.to(values.dtype)
    channels = values.shape[-1]
    if multiply is not None:
        by_head = multiply.to(values.dtype).unflatten(-2, (filters.shape[-2], -1))
        filters = (filters[..., None, :] * by_head).flatten(-3, -2)  # one filter per channel
    if add is None:
        return _sum(values, filters, *neighborhood)
    add = add.to(values.dtype)
    if add.shape[1:3] == (1, 1) and border in ("zero", "mask"):
        # The sum is linear in the filters: the static part alone is a depthwise convolution.
        return _sum(values, filters, *neighborhood) + _sum(values, add, *neighborhood)
    return _sum(values, _per_channel(filters, channels) + add, *neighborhood)


def scores(
    query: Tensor,
    key: Tensor,
    heads: int,
    *,
    kernel: int,
    dilation: int = 1,
    border: str = "zero",
    stride: int = 1,
) -> Tensor:
    """s[i, g, t] = Σ_c q[i, c] · k[n(i, t), c] over the channels of head g; 0 outside the map.

    Args:
        query: (B, H', W', C), `heads` dividing C.
        key: (B, H, W, C).

    Returns:
        (B, H', W', heads, K²).
    """
    return registration.scores(query.contiguous(), key.contiguous(), heads, kernel, dilation, border, stride)


def _per_channel(filters: Tensor, channels: int) -> Tensor:
    """(…, G, K²) → (…, C, K²)."""
    return filters.repeat_interleave(channels // filters.shape[-2], dim=-2)


def _sum(values: Tensor, filters: Tensor, kernel: int, dilation: int, border: str, stride: int) -> Tensor:
    batch, height, width, channels = values.shape
    if filters.shape[1:3] == (1, 1) and border in ("zero", "mask"):
        return _convolution(values, _per_channel(filters, channels)[:, 0, 0], kernel, dilation, stride)
    filters = filters.expand(batch, strided(height, stride), strided(width, stride), -1, -1)
    return registration.aggregate(values.contiguous(), filters.contiguous(), kernel, dilation, border, stride)


def _convolution(values: Tensor, filters: Tensor, kernel: int, dilation: int, stride: int) -> Tensor:
    """Depthwise, with filters (1, C, K²) for all images or (B, C, K²), one for each."""
    batch, _, _, channels = values.shape
    images = values.permute(0, 3, 1, 2)
    if len(filters) > 1:
        images = images.reshape(1, batch * channels, *images.shape[2:])
    weight = filters.reshape(-1, 1, kernel, kernel)
    padding = dilation * (kernel - 1) // 2
    y = F.conv2d(images, weight, stride=stride, padding=padding, dilation=dilation, groups=images.shape[1])
    return y.reshape(batch, channels, *y.shape[2:]).permute(0, 2, 3, 1)
