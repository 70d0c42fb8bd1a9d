"""Pairs of a block of four positions with all that they meet: products, sums, and the taps beyond the map."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from ablate.kernels._numba.run import FAST
from ablate.kernels._numba.simd import (
    FOUR,
    Place,
    Vectors,
    filter_at,
    fma,
    load,
    plus,
    splat,
    store,
    totals,
    zeros,
)

NEVER = np.float32(-1e30)  # the logit of a tap that does not count


class Terms(NamedTuple):
    """Tables that are added to products; flat arrays."""

    pair_bias: Any  # (heads, row offsets, entries of the blocks, 4); NEVER where two do not meet
    bias: Any  # (heads, offsets)
    absent: Any  # (blocks, K, 4): 0 for a tap beyond the side of the map that counts, else NEVER
    whole: Any  # (blocks,): True where no position has such a tap


class Block(NamedTuple):
    """Four neighboring positions of a line, in one head."""

    at: Any  # the first one's channels, in a map
    apart: Any  # how far the others' are from them; 0 for those beyond the line
    left: Any  # positions of the line, from the first one on
    channels: Any  # numbers of a position of the map
    line: Any  # numbers of a line of the map


class Rows(NamedTuple):
    """The rows that a line meets: entries `begin` to `end` of a `TapList`."""

    other: Any
    tap: Any
    offset: Any
    begin: Any
    end: Any


class Columns(NamedTuple):
    """The columns that a block meets: entries `begin` to `end` of a `TapBlocks`."""

    other: Any
    tap: Any
    offset: Any
    begin: Any
    end: Any


class AxialTerms(NamedTuple):
    """Places of the axial terms of a block's four queries, in one head."""

    at: Any  # the first query's
    apart: Any  # from one query's to the next one's
    far: Any  # how far the others' are from the first one's; 0 for those beyond the line
    axis: Any  # offsets of an axis: a query has so many terms for rows, then as many for columns


@njit(fastmath=FAST)
def products(
    mine: Any, block: Block, theirs: Place, columns: Columns, added: Place, out: Place, vectors: Vectors
) -> None:
    """Dot products of a block's four positions with those that it meets in a row, plus what `added` holds.

    `theirs` is the place of the row; four products at a time go to `out`.
    """
    parts, lanes = vectors
    vector, position, number, table = len(lanes), block.at, out.at, added.at
    p1, p2, p3 = position + block.apart[0], position + block.apart[1], position + block.apart[2]
    for entry in range(columns.begin, columns.end):
        q = theirs.at + columns.other[entry] * block.channels
        a, b, c, d = zeros(lanes), zeros(lanes), zeros(lanes), zeros(lanes)
        for part in range(len(parts)):
            ahead = part * vector
            x = load(theirs.array, q + ahead, lanes)
            a = fma(load(mine, position + ahead, lanes), x, a)
            b = fma(load(mine, p1 + ahead, lanes), x, b)
            c = fma(load(mine, p2 + ahead, lanes), x, c)
            d = fma(load(mine, p3 + ahead, lanes), x, d)
        store(out.array, number, plus(totals(a, b, c, d), load(added.array, table, FOUR)))
        number, table = number + 4, table + 4


@njit(fastmath=FAST)
def weighted(
    weights: Any, values: Place, rows: Rows, columns: Columns, out: Any, block: Block, vectors: Vectors
) -> None:
    """Sums of what a block meets, by the weights that `products` left in the same order.

    `values` is the place of the first line of the image; the sums go to the block's place in `out`.
    """
    parts, lanes = vectors
    vector = len(lanes)
    for part in range(len(parts)):
        a, b, c, d = zeros(lanes), zeros(lanes), zeros(lanes), zeros(lanes)
        number = 0
        for row in range(rows.begin, rows.end):
            start = values.at + rows.other[row] * block.line + part * vector
            for entry in range(columns.begin, columns.end):
                x = load(values.array, start + columns.other[entry] * block.channels, lanes)
                a = fma(filter_at(weights, number, None, None, 0, lanes), x, a)
                b = fma(filter_at(weights, number + 1, None, None, 0, lanes), x, b)
                c = fma(filter_at(weights, number + 2, None, None, 0, lanes), x, c)
                d = fma(filter_at(weights, number + 3, None, None, 0, lanes), x, d)
                number += 4
        p = block.at + part * vector
        store(out, p, a)
        if block.left > 1:
            store(out, p + block.channels, b)
        if block.left > 2:
            store(out, p + 2 * block.channels, c)
        if block.left > 3:
            store(out, p + 3 * block.channels, d)


@njit(fastmath=FAST)
def apart_of(left: Any, step: Any) -> Any:
    """Distances from the first position of a block to the others; 0 for those beyond the line."""
    return (
        step if left > 1 else 0,
        2 * step if left > 2 else 0,
        3 * step if left > 3 else 0,
    )


@njit(fastmath=FAST)
def of_block(rows: Any, position: Any, apart: Any, scratch: Any) -> Any:
    """A vector of the four positions' entries."""
    scratch[0] = rows[position]
    scratch[1] = rows[position + apart[0]]
    scratch[2] = rows[position + apart[1]]
    scratch[3] = rows[position + apart[2]]
    return load(scratch, 0, FOUR)


@njit(fastmath=FAST)
def absent_logits(
    logits: Place, bias: Any, absent: Any, rows: Rows, kernel: Any, axial: Any, terms: AxialTerms
) -> Any:
    """Taps beyond the map that count: their logits are biases and axial terms, their values 0.

    Returns the place after the last logit.
    """
    scratch, number = np.empty(4, np.float32), logits.at
    for row in range(kernel):
        here = rows.tap[rows.begin] <= row <= rows.tap[rows.end - 1]
        for k in range(kernel):
            logit = splat(bias[row * kernel + k], FOUR)
            if axial is not None:
                logit = plus(logit, of_block(axial, terms.at + row, terms.far, scratch))
                logit = plus(logit, of_block(axial, terms.at + kernel + k, terms.far, scratch))
            if here:
                logit = plus(logit, load(absent, k * 4, FOUR))
            store(logits.array, number, logit)
            number += 4
    return number
