"""Sums over sliding neighbourhoods, as functions on channels-last tensors.

`geometry` says which positions a neighbourhood reaches, `reference` computes the sums in plain
PyTorch, `registration` makes them PyTorch operators with gradients and FLOP counts. Used by
`ablate.ops` only, through the two functions below; a faster implementation for a device
registers itself under the same operators.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ablate.ops.kernels import registration

__all__ = ["aggregate", "scores"]


def aggregate(
    values: Tensor,
    filters: Tensor,
    *,
    kernel: int,
    dilation: int,
    border: str,
    multiply: Tensor | None = None,
    add: Tensor | None = None,
) -> Tensor:
    """y[i, c] = Σ_t (multiply[c, t] · F[i, g(c), t] + add[c, t]) · v[n(i, t), c].

    Channels belong to heads in contiguous blocks. Filters and both static factors broadcast over
    batch and positions: a filter of shape (1, 1, 1, G, K²) is the same at every position.

    Args:
        values: (B, H, W, C).
        filters: (B or 1, H or 1, W or 1, G, K²), G dividing C.
        kernel: K, odd; `dilation`: distance of two taps; `border`: zero, mask or inside.
        multiply: (1, H or 1, W or 1, C, K²), the ghost head's o^λ.
        add: (1, H or 1, W or 1, C, K²), the ghost head's γ·s.

    Returns:
        (B, H, W, C) in the dtype of `values`.
    """
    filters = filters.to(values.dtype)
    channels = values.shape[-1]
    if multiply is not None:
        filters = _per_channel(filters, channels) * multiply.to(values.dtype)
    if add is None:
        return _sum(values, filters, kernel, dilation, border)
    add = add.to(values.dtype)
    if add.shape[1:3] == (1, 1) and border != "inside":
        # The sum is linear in the filters: the static part alone is a depthwise convolution.
        return _sum(values, filters, kernel, dilation, border) + _sum(values, add, kernel, dilation, border)
    return _sum(values, _per_channel(filters, channels) + add, kernel, dilation, border)


def scores(query: Tensor, key: Tensor, heads: int, *, kernel: int, dilation: int, border: str) -> Tensor:
    """s[i, g, t] = Σ_c q[i, c] · k[n(i, t), c] over the channels of head g; 0 outside the map.

    Args:
        query, key: (B, H, W, C), `heads` dividing C.

    Returns:
        (B, H, W, heads, K²).
    """
    return registration.scores(query.contiguous(), key.contiguous(), heads, kernel, dilation, border)


def _per_channel(filters: Tensor, channels: int) -> Tensor:
    """(…, G, K²) → (…, C, K²)."""
    return filters.repeat_interleave(channels // filters.shape[-2], dim=-2)


def _sum(values: Tensor, filters: Tensor, kernel: int, dilation: int, border: str) -> Tensor:
    batch, height, width, channels = values.shape
    if filters.shape[:3] == (1, 1, 1) and border != "inside":
        weight = _per_channel(filters, channels).reshape(channels, 1, kernel, kernel)
        padding = dilation * (kernel - 1) // 2
        y = F.conv2d(values.permute(0, 3, 1, 2), weight, padding=padding, dilation=dilation, groups=channels)
        return y.permute(0, 2, 3, 1)
    filters = filters.expand(batch, height, width, *filters.shape[3:])
    return registration.aggregate(values.contiguous(), filters.contiguous(), kernel, dilation, border)
