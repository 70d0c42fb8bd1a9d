"""The three sums over a sliding neighbourhood in plain PyTorch: the truth for every fast path.

With n(i, t) the neighbour of position i at tap t, i every `stride`-th position of the map per axis,
g the head of a channel, and sums over what appears only on the right:

    aggregate   y[i, c]    = Σ_t  F[i, g, t] · v[n(i, t), c]
    scores      s[i, g, t] = Σ_c  q[i, c] · k[n(i, t), c]          c in head g
    spread      v[j, c]    = Σ_{i, t: n(i, t) = j}  F[i, g, t] · y[i, c]

Each is the derivative of another, so that the three are closed under differentiation. Neighbours
outside the map have value 0 under the borders `zero` and `mask`; `inside` and `reflect` have none.

Two forms give the same sums. *Taps* walks the K² taps over shifted maps: memory does not depend on
the map, time is bound by memory traffic. *Matrix* puts the filters into a (Q, L) matrix per head
and lets the matrix product do the sum: several times faster on a 14×14 map at K = 7, but quadratic
in L. `small_map` chooses.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ablate.ops.kernels.geometry import axis_taps, matrix_index, neighborhoods, pair_index, strided
from ablate.ops.kernels.layout import merge_heads, split_heads

MATRIX_LIMIT = 6  # positions per tap up to which the matrix form is the faster one on a CPU
MATRIX_CHUNK = 2**20  # entries of the matrices held at a time


def small_map(height: int, width: int, kernel: int, border: str) -> bool:
    """Whether the matrix form is used; reflected taps may meet in one entry of a matrix."""
    return border != "reflect" and height * width <= max(MATRIX_LIMIT * kernel * kernel, 64)


def aggregate(
    values: Tensor, filters: Tensor, kernel: int, dilation: int, border: str, stride: int
) -> Tensor:
    """(B, H, W, C), (B, H', W', G, K²) → (B, H', W', C)."""
    _, height, width, channels = values.shape
    heads = filters.shape[3]
    if small_map(height, width, kernel, border):
        by_head = split_heads(values, heads)
        matrices = _matrices(filters, height, width, kernel, dilation, border, stride)
        parts = [matrix @ by_head[chunk] for chunk, matrix in matrices]
        return merge_heads(torch.cat(parts), *filters.shape[1:3])
    per_head = values.new_zeros(*filters.shape[:4], channels // heads)
    for tap, neighbor in _neighbors(values, kernel, dilation, border, stride):
        per_head += filters[..., tap, None] * neighbor.unflatten(-1, (heads, -1))
    return per_head.flatten(-2)


def scores(
    query: Tensor, key: Tensor, heads: int, kernel: int, dilation: int, border: str, stride: int
) -> Tensor:
    """(B, H', W', C), (B, H, W, C) → (B, H', W', G, K²)."""
    batch, height, width, _ = key.shape
    taps = kernel * kernel
    if small_map(height, width, kernel, border):
        pairs, valid = pair_index(height, width, kernel, dilation, border, stride, query.device)
        by_head, transposed = split_heads(query, heads), split_heads(key, heads).transpose(-1, -2)
        out = query.new_empty(batch, heads, pairs.numel())
        for chunk in _chunks(batch, heads * height * width * by_head.shape[2]):
            products = (by_head[chunk] @ transposed[chunk]).flatten(2)  # (b, G, Q·L)
            out[chunk] = products.flatten(0, 1).index_select(-1, pairs).unflatten(0, (-1, heads))
        if valid is not None:
            out *= valid
        return out.unflatten(-1, (*query.shape[1:3], taps)).permute(0, 2, 3, 1, 4).contiguous()
    out = query.new_empty(*query.shape[:3], heads, taps)
    per_head = query.unflatten(-1, (heads, -1))
    for tap, neighbor in _neighbors(key, kernel, dilation, border, stride):
        out[..., tap] = (per_head * neighbor.unflatten(-1, (heads, -1))).sum(-1)
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
    batch, _, _, channels = outputs.shape
    heads = filters.shape[3]
    if small_map(height, width, kernel, border):
        by_head = split_heads(outputs, heads)
        matrices = _matrices(filters, height, width, kernel, dilation, border, stride)
        parts = [matrix.transpose(-1, -2) @ by_head[chunk] for chunk, matrix in matrices]
        return merge_heads(torch.cat(parts), height, width)
    per_head = outputs.unflatten(-1, (heads, -1))
    neighbor = neighborhoods(height, width, kernel, dilation, border, stride, outputs.device).neighbor
    flat = outputs.new_zeros(batch, height * width + 1, channels)  # the last row takes what falls outside
    for tap in range(kernel * kernel):
        weighted = (filters[..., tap, None] * per_head).reshape(batch, -1, channels)
        flat.index_add_(1, neighbor[:, tap], weighted)
    return flat[:, :-1].reshape(batch, height, width, channels).contiguous()


def _neighbors(
    x: Tensor, kernel: int, dilation: int, border: str, stride: int
) -> Iterator[tuple[int, Tensor]]:
    """Each tap's number and the map of its neighbours, zero where they lie outside."""
    _, height, width, _ = x.shape
    if border in ("inside", "reflect"):
        rows = axis_taps(height, kernel, dilation, border, stride).position.to(x.device)
        columns = axis_taps(width, kernel, dilation, border, stride).position.to(x.device)
        for tap in range(kernel * kernel):
            row, column = divmod(tap, kernel)
            yield tap, x[:, rows[:, row]][:, :, columns[:, column]]
        return
    radius = dilation * (kernel - 1) // 2
    padded = F.pad(x, (0, 0, radius, radius, radius, radius))
    for tap in range(kernel * kernel):
        top, left = (dilation * part for part in divmod(tap, kernel))
        yield tap, padded[:, top : top + height : stride, left : left + width : stride]


def _matrices(
    filters: Tensor, height: int, width: int, kernel: int, dilation: int, border: str, stride: int
) -> Iterator[tuple[slice, Tensor]]:
    """(B, H', W', G, K²) → chunks of images and their (b, G, Q, L): row i is i's filter at its neighbours."""
    batch, heads = filters.shape[0], filters.shape[3]
    queries, length = strided(height, stride) * strided(width, stride), height * width
    index = matrix_index(height, width, kernel, dilation, border, stride, filters.device)
    flat = F.pad(filters.flatten(1, 2).transpose(1, 2).flatten(2), (0, 1))  # (B, G, Q·K² + 1), last entry 0
    for chunk in _chunks(batch, heads * queries * length):
        matrix = flat[chunk].flatten(0, 1).index_select(-1, index)
        yield chunk, matrix.view(-1, heads, queries, length)


def _chunks(batch: int, entries: int) -> Iterator[slice]:
    """Slices of the batch whose matrices stay in a core's cache: three times as fast as one large product."""
    step = max(1, MATRIX_CHUNK // entries)
    return (slice(start, start + step) for start in range(0, batch, step))
