"""The three sums over a sliding neighbourhood in plain PyTorch: the truth for every fast path.

With n(i, t) the neighbour of position i at tap t, g the head of a channel, and sums over what
appears only on the right:

    aggregate   y[i, c]    = Σ_t  F[i, g, t] · v[n(i, t), c]
    scores      s[i, g, t] = Σ_c  q[i, c] · k[n(i, t), c]          c in head g
    spread      v[j, c]    = Σ_{i, t: n(i, t) = j}  F[i, g, t] · y[i, c]

Each is the derivative of another, so that the three are closed under differentiation. Neighbours
outside the map have value 0 under the borders `zero` and `mask`.

Two forms give the same sums. *Taps* walks the K² taps over shifted maps: memory does not depend on
the map, time is bound by memory traffic. *Matrix* puts the filters into an (L, L) matrix per head
and lets the matrix product do the sum: 4 to 5 times faster on a 14×14 map at K = 7, forward and
backward on one CPU core, but quadratic in L. `small_map` chooses.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ablate.ops.kernels.geometry import axis_taps, neighborhoods

MATRIX_LIMIT = 6  # positions per tap up to which the matrix form is the faster one on a CPU


def small_map(height: int, width: int, kernel: int) -> bool:
    """Whether the matrix form is used."""
    return height * width <= max(MATRIX_LIMIT * kernel * kernel, 64)


def aggregate(values: Tensor, filters: Tensor, kernel: int, dilation: int, border: str) -> Tensor:
    """(B, H, W, C), (B, H, W, G, K²) → (B, H, W, C)."""
    batch, height, width, channels = values.shape
    heads = filters.shape[3]
    if small_map(height, width, kernel):
        matrix = _matrix(filters, kernel, dilation, border)
        return _merge_heads(matrix @ _split_heads(values, heads), height, width)
    per_head = values.new_zeros(batch, height, width, heads, channels // heads)
    for tap, neighbor in _neighbors(values, kernel, dilation, border):
        per_head += filters[..., tap, None] * neighbor.unflatten(-1, (heads, -1))
    return per_head.flatten(-2)


def scores(query: Tensor, key: Tensor, heads: int, kernel: int, dilation: int, border: str) -> Tensor:
    """(B, H, W, C), (B, H, W, C) → (B, H, W, G, K²)."""
    batch, height, width, _ = query.shape
    taps = kernel * kernel
    if small_map(height, width, kernel):
        index = neighborhoods(height, width, kernel, dilation, border, query.device).index
        products = _split_heads(query, heads) @ _split_heads(key, heads).transpose(-1, -2)  # (B, G, L, L)
        picked = F.pad(products, (0, 1)).gather(-1, index.expand(batch, heads, *index.shape))
        return picked.transpose(1, 2).reshape(batch, height, width, heads, taps)
    out = query.new_empty(batch, height, width, heads, taps)
    per_head = query.unflatten(-1, (heads, -1))
    for tap, neighbor in _neighbors(key, kernel, dilation, border):
        out[..., tap] = (per_head * neighbor.unflatten(-1, (heads, -1))).sum(-1)
    return out


def spread(outputs: Tensor, filters: Tensor, kernel: int, dilation: int, border: str) -> Tensor:
    """(B, H, W, C), (B, H, W, G, K²) → (B, H, W, C): the transpose of `aggregate`."""
    batch, height, width, channels = outputs.shape
    heads = filters.shape[3]
    if small_map(height, width, kernel):
        matrix = _matrix(filters, kernel, dilation, border).transpose(-1, -2)
        return _merge_heads(matrix @ _split_heads(outputs, heads), height, width)
    per_head = outputs.unflatten(-1, (heads, -1))
    index = neighborhoods(height, width, kernel, dilation, border, outputs.device).index  # (L, T)
    flat = outputs.new_zeros(batch, height * width + 1, channels)  # the last row takes what falls outside
    for tap in range(kernel * kernel):
        weighted = (filters[..., tap, None] * per_head).reshape(batch, height * width, channels)
        flat.index_add_(1, index[:, tap], weighted)
    return flat[:, :-1].reshape(batch, height, width, channels)


def _neighbors(x: Tensor, kernel: int, dilation: int, border: str) -> Iterator[tuple[int, Tensor]]:
    """Each tap's number and the map of its neighbours, zero where they lie outside."""
    _, height, width, _ = x.shape
    if border == "inside":
        rows = axis_taps(height, kernel, dilation, border).position.to(x.device)
        columns = axis_taps(width, kernel, dilation, border).position.to(x.device)
        for tap in range(kernel * kernel):
            row, column = divmod(tap, kernel)
            yield tap, x[:, rows[:, row]][:, :, columns[:, column]]
        return
    radius = dilation * (kernel - 1) // 2
    padded = F.pad(x, (0, 0, radius, radius, radius, radius))
    for tap in range(kernel * kernel):
        top, left = (dilation * part for part in divmod(tap, kernel))
        yield tap, padded[:, top : top + height, left : left + width]


def _matrix(filters: Tensor, kernel: int, dilation: int, border: str) -> Tensor:
    """(B, H, W, G, K²) → (B, G, L, L): row i holds the filter of position i at its neighbours."""
    batch, height, width, heads, _ = filters.shape
    length = height * width
    index = neighborhoods(height, width, kernel, dilation, border, filters.device).index
    columns = index.expand(batch, heads, *index.shape)
    matrix = filters.new_zeros(batch, heads, length, length + 1)  # the last column takes what falls outside
    matrix.scatter_(-1, columns, filters.flatten(1, 2).transpose(1, 2))
    return matrix[..., :length]


def _split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, H, W, C) → (B, G, L, C/G)."""
    return x.flatten(1, 2).unflatten(-1, (heads, -1)).transpose(1, 2)


def _merge_heads(x: Tensor, height: int, width: int) -> Tensor:
    """(B, G, L, C/G) → (B, H, W, C)."""
    return x.transpose(1, 2).flatten(2).unflatten(1, (height, width)).contiguous()
