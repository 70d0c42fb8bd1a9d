"""The sums as authors write them: neighbors copied out by `F.unfold`, then products and sums.

Border `zero`: what lies outside the map is 0 and takes part. `heads` comes first everywhere, maps are
(B, H, W, C), tables (1, C, K²).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def neighbors(x: Tensor, heads: int, kernel: int) -> Tensor:
    """(B, H, W, C) → (B, G, C/G, K², H, W): a copy of the map for each tap."""
    batch, height, width, channels = x.shape
    columns = F.unfold(x.permute(0, 3, 1, 2), kernel, padding=kernel // 2)  # (B, C·K², L)
    return columns.view(batch, heads, channels // heads, kernel * kernel, height, width)


def aggregate(heads: int, kernel: int, values: Tensor, filters: Tensor) -> Tensor:
    """Filters (B, H, W, G, K²) → (B, H, W, C); as in involution's code."""
    by_head = filters.permute(0, 3, 4, 1, 2).unsqueeze(2)  # (B, G, 1, K², H, W)
    y = (neighbors(values, heads, kernel) * by_head).sum(3)
    return y.flatten(1, 2).permute(0, 2, 3, 1)


def ghost_aggregate(
    heads: int, kernel: int, values: Tensor, filters: Tensor, multiply: Tensor, add: Tensor
) -> Tensor:
    """Filters expanded to one for each channel by both tables; as in ELSA's code without its kernel."""
    by_head = filters.permute(0, 3, 4, 1, 2).unsqueeze(2)
    multiply, add = (x.view(1, heads, -1, kernel * kernel, 1, 1) for x in (multiply, add))
    y = (neighbors(values, heads, kernel) * (by_head * multiply + add)).sum(3)
    return y.flatten(1, 2).permute(0, 2, 3, 1)


def scores(heads: int, kernel: int, query: Tensor, key: Tensor) -> Tensor:
    """→ (B, H, W, G, K²)."""
    batch, height, width, channels = query.shape
    by_head = query.permute(0, 3, 1, 2).reshape(batch, heads, channels // heads, 1, height, width)
    return (by_head * neighbors(key, heads, kernel)).sum(2).permute(0, 3, 4, 1, 2)


def attention(heads: int, kernel: int, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Bias (G, K²), one for each tap → (B, H, W, C)."""
    weights = (scores(heads, kernel, query, key) + bias).softmax(-1)
    return aggregate(heads, kernel, value, weights)
