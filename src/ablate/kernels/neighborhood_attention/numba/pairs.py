"""Pairs of a block of four positions with all that they meet: products, sums, and the taps beyond the map."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from ablate.kernels._numba.run import FAST
from ablate.kernels._numba.simd import filter_at, fma, load, plus, splat, store, totals, zeros

NEVER = np.float32(-1e30)  # the logit of a tap that does not count


class Terms(NamedTuple):
    """Tables that are added to products; flat arrays."""

    pair_bias: Any  # (heads, row offsets, entries of the blocks, 4); NEVER where two do not meet
    bias: Any  # (heads, offsets)
    absent: Any  # (blocks, K, 4): 0 for a tap beyond the side of the map that counts, else NEVER
    whole: Any  # (blocks,): True where no position has such a tap


class Vectors(NamedTuple):
    """Tuples whose lengths the compiler knows."""

    parts: Any  # vectors in a head
    lanes: Any  # of a vector
    four: Any
    sixteen: Any


@njit(fastmath=FAST)
def products(
    mine: Any,
    position: Any,
    apart: Any,
    theirs: Any,
    place: Any,
    other: Any,
    begin: Any,
    end: Any,
    channels: Any,
    plus_these: Any,
    table: Any,
    out: Any,
    number: Any,
    parts: Any,
    lanes: Any,
    four: Any,
) -> None:
    """Dot products of a block's four positions with those that it meets in a row, plus what a table adds.

    `position` is the first one's place, `apart` has how far the others are from it; four products at a
    time go to `out`.
    """
    vector = len(lanes)
    p1, p2, p3 = position + apart[0], position + apart[1], position + apart[2]
    for entry in range(begin, end):
        q = place + other[entry] * channels
        a, b, c, d = zeros(lanes), zeros(lanes), zeros(lanes), zeros(lanes)
        for part in range(len(parts)):
            ahead = part * vector
            x = load(theirs, q + ahead, lanes)
            a = fma(load(mine, position + ahead, lanes), x, a)
            b = fma(load(mine, p1 + ahead, lanes), x, b)
            c = fma(load(mine, p2 + ahead, lanes), x, c)
            d = fma(load(mine, p3 + ahead, lanes), x, d)
        store(out, number, plus(totals(a, b, c, d), load(plus_these, table, four)))
        number, table = number + 4, table + 4


@njit(fastmath=FAST)
def weighted(
    weights: Any,
    values: Any,
    place: Any,
    channels: Any,
    row_other: Any,
    row_begin: Any,
    row_end: Any,
    line: Any,
    other: Any,
    begin: Any,
    end: Any,
    out: Any,
    position: Any,
    left: Any,
    parts: Any,
    lanes: Any,
) -> None:
    """Sums of what a block meets, by the weights that `_products` left in the same order."""
    vector = len(lanes)
    for part in range(len(parts)):
        a, b, c, d = zeros(lanes), zeros(lanes), zeros(lanes), zeros(lanes)
        number = 0
        for row in range(row_begin, row_end):
            start = place + row_other[row] * line + part * vector
            for entry in range(begin, end):
                x = load(values, start + other[entry] * channels, lanes)
                a = fma(filter_at(weights, number, None, None, 0, lanes), x, a)
                b = fma(filter_at(weights, number + 1, None, None, 0, lanes), x, b)
                c = fma(filter_at(weights, number + 2, None, None, 0, lanes), x, c)
                d = fma(filter_at(weights, number + 3, None, None, 0, lanes), x, d)
                number += 4
        p = position + part * vector
        store(out, p, a)
        if left > 1:
            store(out, p + channels, b)
        if left > 2:
            store(out, p + 2 * channels, c)
        if left > 3:
            store(out, p + 3 * channels, d)


@njit(fastmath=FAST)
def apart_of(left: Any, step: Any) -> Any:
    """Distances from the first position of a block to the others; 0 for those beyond the line."""
    return (
        step if left > 1 else 0,
        2 * step if left > 2 else 0,
        3 * step if left > 3 else 0,
    )


@njit(fastmath=FAST)
def of_block(rows: Any, position: Any, apart: Any, scratch: Any, four: Any) -> Any:
    """A vector of the four positions' entries."""
    scratch[0] = rows[position]
    scratch[1] = rows[position + apart[0]]
    scratch[2] = rows[position + apart[1]]
    scratch[3] = rows[position + apart[2]]
    return load(scratch, 0, four)


@njit(fastmath=FAST)
def absent_logits(
    logits: Any,
    number: Any,
    bias: Any,
    absent: Any,
    row_tap: Any,
    row_begin: Any,
    row_end: Any,
    kernel: Any,
    axial: Any,
    own: Any,
    far: Any,
    four: Any,
) -> Any:
    """Taps beyond the map that count: their logits are biases and axial terms, their values 0."""
    scratch = np.empty(4, np.float32)
    for row in range(kernel):
        here = row_tap[row_begin] <= row <= row_tap[row_end - 1]
        for k in range(kernel):
            logit = splat(bias[row * kernel + k], four)
            if axial is not None:
                logit = plus(logit, of_block(axial, own + row, far, scratch, four))
                logit = plus(logit, of_block(axial, own + kernel + k, far, scratch, four))
            if here:
                logit = plus(logit, load(absent, k * 4, four))
            store(logits, number, logit)
            number += 4
    return number
