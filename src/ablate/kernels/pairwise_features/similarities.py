"""Attention over whole groups whose similarities were normalised one by one (LESA), some groups at a time.

    a_ij = softmax_j( q_i·k_j + q_i·r^q_ij + k_j·r^k_ji ),   y_i = Σ_j a_ij v_j,   z_i = Σ_j a_ij r^v_ij

A batch norm of each similarity is a factor of its queries or keys: its shift is the same for all j, which
softmax does not see. So no map (L, L) of a similarity is kept, only that of the attention; and so many groups
are taken at a time that their maps stay in a core's cache, but weigh no less than the tables of positions. A
compiled or exported graph takes all groups at once, so that it serves any batch.
Maps are (L, groups · heads, L), position i first: every product with a table is then a matrix product for
each position, without a copy. It is plain PyTorch: gradients of any order and compilation work.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

ENTRIES = {"cpu": 2**20, "cuda": 2**62}  # of a part's maps; a card takes all groups at once


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    positions: tuple[Tensor, Tensor | None, Tensor | None],
    scale: Tensor,
    valid: Tensor | None,
) -> list[Tensor]:
    """y, and z where there is r^v: (N, G, d, L) each.

    Args:
        query: q, (N, G, c, L).
        key: k alike.
        value: v, (N, G, d, L).
        positions: r^q, (c, L, L), the query's position first; r^k alike, the key's first, or None: no such
            similarity; r^v, (d, L, L), or None.
        scale: (similarities, G): what each is multiplied by.
        valid: (N, 1, L, L), which pairs meet; None: all.
    """
    at_query, at_key, at_value = positions
    factors = scale[:, None, :, None, None].to(query.dtype)
    scaled = [query * factors[0], query * factors[1]]
    tables = [at_query.transpose(0, 1)]  # (i, c, j)
    if at_key is not None:
        scaled.append(key * factors[2])
        tables.append(at_key.transpose(0, 1))  # (j, c, i)
    tables = [table.contiguous() for table in tables]
    of_value = None if at_value is None else at_value.permute(1, 2, 0).contiguous()  # (i, j, d)
    weight = sum(table.numel() for table in (at_query, at_key, at_value) if table is not None)
    found = []
    for part in _parts(query, weight):
        theirs = [x[part] for x in scaled]
        attention = _attention(theirs, key[part], tables, None if valid is None else valid[part])
        by_head = value[part].flatten(0, 1)
        outputs = [(attention.transpose(0, 1) @ by_head.mT).unflatten(0, theirs[0].shape[:2]).mT]
        if of_value is not None:
            outputs.append(_permuted(attention @ of_value, 1, 2, 0).unflatten(0, theirs[0].shape[:2]))
        found.append(outputs)
    return [torch.cat(part_by_part) for part_by_part in zip(*found, strict=True)]


def _attention(scaled: list[Tensor], key: Tensor, tables: list[Tensor], valid: Tensor | None) -> Tensor:
    """(L, groups · heads, L), position i first, of some groups."""
    by_content, at_query, *at_key = (x.flatten(0, 1) for x in scaled)  # (groups · heads, c, L)
    logits = by_content.mT @ key.flatten(0, 1)
    logits = torch.baddbmm(logits.transpose(0, 1), _permuted(at_query, 2, 0, 1), tables[0])
    for keys, table in zip(at_key, tables[1:], strict=True):
        logits = logits + _permuted(torch.bmm(_permuted(keys, 2, 0, 1), table), 2, 1, 0)
    if valid is not None:
        groups, heads = scaled[0].shape[:2]
        apart = ~valid.permute(2, 0, 1, 3)  # (i, groups, 1, j)
        logits = logits.unflatten(1, (groups, heads)).masked_fill(apart, float("-inf")).flatten(1, 2)
    return logits.softmax(-1)


class _Permuted(torch.autograd.Function):
    """A permutation, contiguous there and back.

    PyTorch makes products of many small matrices one by one where a factor has neither its rows nor its
    columns in one piece, as the gradient of a permuted one has not.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: tuple[int, ...]) -> Tensor:
        ctx.back = tuple(order.index(place) for place in range(len(order)))
        return x.permute(order).contiguous()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _permuted(grad, *ctx.back), None


def _permuted(x: Tensor, *order: int) -> Tensor:
    return _Permuted.apply(x, order)


def _parts(query: Tensor, tables: int) -> Iterator[slice]:
    groups, heads, _, length = query.shape
    if torch.compiler.is_compiling():  # a loop over the batch would fix its size in the graph
        yield slice(None)
        return
    size = max(1, max(ENTRIES[query.device.type], tables) // (heads * length**2))
    for first in range(0, groups, size):
        yield slice(first, first + size)
