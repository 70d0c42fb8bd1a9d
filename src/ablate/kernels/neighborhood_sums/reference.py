"""The sums over a sliding neighborhood in plain PyTorch: the reference for every fast path.

Positions i are every `stride`-th of the map per axis. Neighbors outside the map have value 0 under
the borders `zero` and `mask`; `inside` and `reflect` have none.

Two forms give the same sums. *Taps* walks the K² taps over shifted maps: memory does not depend on
the kernel, time is bound by memory traffic. *Matrix*, without static factors, puts the filters into a
(Q, L) matrix per head and lets the matrix product do the sum: several times faster on a 14×14 map at
K = 7, but quadratic in L. `small_map` chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ablate.kernels.geometry import (
    Neighborhood,
    axis_taps,
    map_taps,
    matrix_index,
    offsets_per_axis,
    pair_index,
    strided,
)
from ablate.kernels.layout import merge_heads, split_heads
from ablate.kernels.precision import as_declared

MATRIX_LIMIT = 6  # positions per tap up to which the matrix form is the faster one on a CPU
MATRIX_CHUNK = 2**20  # entries of the matrices held at a time


def small_map(height: int, width: int, neighborhood: Neighborhood) -> bool:
    """Return True if the matrix form is used; never for `reflect`, whose taps may share an entry."""
    fits = height * width <= max(MATRIX_LIMIT * neighborhood.taps, 64)
    return fits and neighborhood.border != "reflect"


def _as_declared(compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Run without autocast, which would give matrix products another dtype than the operator declares."""

    @wraps(compute)
    def run(x: Tensor, *others: Any) -> Tensor:
        with as_declared(x):
            return compute(x, *others)

    return run


@_as_declared
def aggregate(
    values: Tensor,
    filters: Tensor,
    multiply: Tensor | None,
    add: Tensor | None,
    neighborhood: Neighborhood,
) -> Tensor:
    """(B, H, W, C), (B, H', W', G, K²), (B or 1, C, offsets) → (B, H', W', C)."""
    _, height, width, channels = values.shape
    if multiply is None and add is None and small_map(height, width, neighborhood):
        by_head = split_heads(values, filters.shape[3])
        matrices = _matrices(filters, height, width, neighborhood)
        parts = [matrix @ by_head[chunk] for chunk, matrix in matrices]
        return merge_heads(torch.cat(parts), *filters.shape[1:3])
    out = values.new_zeros(*filters.shape[:3], channels)
    static = _at_taps(multiply, add, height, width, neighborhood)
    for tap, neighbor in _neighbors(values, neighborhood):
        out += _weighted(neighbor, filters, tap, *static(tap))
    return out


@_as_declared
def aggregate_transpose(
    outputs: Tensor,
    filters: Tensor,
    multiply: Tensor | None,
    add: Tensor | None,
    height: int,
    width: int,
    neighborhood: Neighborhood,
) -> Tensor:
    """(B, H', W', C), (B, H', W', G, K²), (B or 1, C, offsets) → (B, H, W, C): `aggregate` transposed."""
    batch, _, _, channels = outputs.shape
    if multiply is None and add is None and small_map(height, width, neighborhood):
        by_head = split_heads(outputs, filters.shape[3])
        matrices = _matrices(filters, height, width, neighborhood)
        parts = [matrix.transpose(-1, -2) @ by_head[chunk] for chunk, matrix in matrices]
        return merge_heads(torch.cat(parts), height, width)
    neighbor = map_taps(height, width, neighborhood, outputs.device).neighbor
    flat = outputs.new_zeros(batch, height * width + 1, channels)  # the last row takes what falls outside
    static = _at_taps(multiply, add, height, width, neighborhood)
    for tap in range(neighborhood.taps):
        weighted = _weighted(outputs, filters, tap, *static(tap))
        flat.index_add_(1, neighbor[:, tap], weighted.flatten(1, 2))
    return flat[:, :-1].reshape(batch, height, width, channels).contiguous()


@_as_declared
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
    found = _products(query, key, multiply, add, heads, neighborhood)
    if bias is None:
        return found
    if neighborhood.border != "inside":  # tap t has offset t everywhere
        return found.add_(bias)
    _, height, width, _ = key.shape
    offset = map_taps(height, width, neighborhood, bias.device).offset
    by_position = bias[:, offset].transpose(0, 1)  # (Q, G, K²)
    return found.add_(by_position.reshape(found.shape[1:]))


def _products(
    query: Tensor,
    key: Tensor,
    multiply: Tensor | None,
    add: Tensor | None,
    heads: int,
    neighborhood: Neighborhood,
) -> Tensor:
    """The scores without a bias."""
    batch, height, width, _ = key.shape
    if multiply is None and add is None and small_map(height, width, neighborhood):
        pairs, valid = pair_index(height, width, neighborhood, query.device)
        by_head, transposed = split_heads(query, heads), split_heads(key, heads).transpose(-1, -2)
        out = query.new_empty(batch, heads, pairs.numel())
        for chunk in _chunks(batch, heads * height * width * by_head.shape[2]):
            products = (by_head[chunk] @ transposed[chunk]).flatten(2)  # (b, G, Q·L)
            out[chunk] = products.flatten(0, 1).index_select(-1, pairs).view_as(out[chunk])
        if valid is not None:
            out *= valid
        return out.unflatten(-1, (*query.shape[1:3], neighborhood.taps)).permute(0, 2, 3, 1, 4).contiguous()
    out = query.new_empty(*query.shape[:3], heads, neighborhood.taps)
    static = _at_taps(multiply, add, height, width, neighborhood)
    for tap, neighbor in _neighbors(key, neighborhood):
        multiplied, added = static(tap)
        factor = query if multiplied is None else query * multiplied
        product = (factor if added is None else factor + added) * neighbor
        out[..., tap] = product.unflatten(-1, (heads, -1)).sum(-1)
    return out


def static_grad(
    outputs: Tensor,
    values: Tensor,
    filters: Tensor,
    neighborhood: Neighborhood,
    shared: bool = False,
) -> tuple[Tensor, Tensor]:
    """(B, H', W', C), (B, H, W, C), (B, H', W', G, K²) → of multiply and of add, (B, C, offsets) each.

    `shared` sums over the batch, (1, C, offsets).
    """
    kernel, _, border, _ = neighborhood
    _, height, width, channels = values.shape
    offset = map_taps(height, width, neighborhood, values.device).offset
    shape = outputs.shape[0], offsets_per_axis(kernel, border) ** 2, channels
    of_multiply, of_add = outputs.new_zeros(shape), outputs.new_zeros(shape)
    for tap, neighbor in _neighbors(values, neighborhood):
        product = outputs * neighbor
        filtered = _weighted(product, filters, tap, None, None)
        if border == "inside":
            of_add.index_add_(1, offset[:, tap], product.flatten(1, 2))
            of_multiply.index_add_(1, offset[:, tap], filtered.flatten(1, 2))
        else:
            of_add[:, tap] = product.sum((1, 2))
            of_multiply[:, tap] = filtered.sum((1, 2))
    if shared:
        of_multiply, of_add = of_multiply.sum(0, keepdim=True), of_add.sum(0, keepdim=True)
    return of_multiply.transpose(1, 2).contiguous(), of_add.transpose(1, 2).contiguous()


def _weighted(maps: Tensor, filters: Tensor, tap: int, multiply: Tensor | None, add: Tensor | None) -> Tensor:
    """Maps times the filters of their channels at one tap, (B, H', W', C)."""
    found = (filters[..., tap, None] * maps.unflatten(-1, (filters.shape[3], -1))).flatten(-2)
    if multiply is not None:
        found = found * multiply
    return found if add is None else found + add * maps


def _at_taps(
    multiply: Tensor | None,
    add: Tensor | None,
    height: int,
    width: int,
    neighborhood: Neighborhood,
) -> Callable[[int], tuple[Tensor | None, Tensor | None]]:
    """Return a function from a tap to both static factors there, (B or 1, H' or 1, W' or 1, C)."""
    _, _, border, stride = neighborhood

    def at(table: Tensor | None, tap: int) -> Tensor | None:
        if table is None:
            return None
        if border != "inside":  # tap t has offset t everywhere
            return table[:, None, None, :, tap]
        offset = map_taps(height, width, neighborhood, table.device).offset
        found = table[:, :, offset[:, tap]].transpose(1, 2)
        return found.unflatten(1, (strided(height, stride), strided(width, stride)))

    return lambda tap: (at(multiply, tap), at(add, tap))


def _neighbors(x: Tensor, neighborhood: Neighborhood) -> Iterator[tuple[int, Tensor]]:
    """Each tap's number and the map of its neighbors, zero where they lie outside."""
    kernel, dilation, border, stride = neighborhood
    _, height, width, _ = x.shape
    if border in ("inside", "reflect"):
        rows = axis_taps(height, neighborhood).position.to(x.device)
        columns = axis_taps(width, neighborhood).position.to(x.device)
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
    filters: Tensor, height: int, width: int, neighborhood: Neighborhood
) -> Iterator[tuple[slice, Tensor]]:
    """(B, H', W', G, K²) → chunks of images and their (b, G, Q, L): row i is i's filter at its neighbors."""
    batch, heads = filters.shape[0], filters.shape[3]
    queries, length = (
        strided(height, neighborhood.stride) * strided(width, neighborhood.stride),
        height * width,
    )
    index = matrix_index(height, width, neighborhood, filters.device)
    flat = F.pad(filters.flatten(1, 2).transpose(1, 2).flatten(2), (0, 1))  # (B, G, Q·K² + 1), last entry 0
    for chunk in _chunks(batch, heads * queries * length):
        matrix = flat[chunk].flatten(0, 1).index_select(-1, index)
        yield chunk, matrix.view(matrix.shape[0] // heads, heads, queries, length)


def _chunks(batch: int, entries: int) -> Iterator[slice]:
    """Slices of the batch whose matrices stay in a core's cache: three times as fast as one large product."""
    step = max(1, MATRIX_CHUNK // entries)
    return (slice(start, start + step) for start in range(0, max(batch, 1), step))  # one of an empty batch
