"""Pairs of a position with its mixed neighbors: products, sums, and their softmax."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from ablate.kernels._numba.run import FAST
from ablate.kernels._numba.simd import (
    exponential,
    filter_at,
    fma,
    load,
    minus,
    splat,
    store,
    times,
    totals,
    zeros,
)

NEVER = np.float32(-1e30)  # the logit of what fills up the taps to a multiple of four


class Maps(NamedTuple):
    """Flat arrays of float32."""

    query: Any
    key: Any
    value: Any


class Weights(NamedTuple):
    """Weights of the mixture, flat arrays of float32; see `_weights`."""

    mix: Any  # (taps, K², d)
    of_logits: Any  # (heads, taps, d)
    of_values: Any  # (taps, d)


class Vectors(NamedTuple):
    """Tuples whose lengths the compiler knows."""

    parts: Any  # vectors in a head
    lanes: Any  # of a vector
    four: Any


@njit(fastmath=FAST)
def within(position: Any, length: Any, kernel: Any, sign: Any) -> Any:
    """The first neighbor along an axis that lies in the map, and the one after the last."""
    half = kernel // 2
    if sign > 0:
        return max(0, half - position), min(kernel, length - position + half)
    return max(0, position + half - length + 1), min(kernel, position + half + 1)


@njit(fastmath=FAST)
def products(
    x: Any,
    position: Any,
    y: Any,
    image: Any,
    row: Any,
    column: Any,
    form: Any,
    w: Any,
    e: Any,
    e_at: Any,
    out: Any,
    out_at: Any,
    parts: Any,
    lanes: Any,
) -> None:
    """out[t] = Σ_c x[c] (Σ_s w[t,s,c] y[n(s),c] + e[t,c]), four taps at a time."""
    height, columns, heads, kernel = form
    vector, taps = len(lanes), kernel * kernel
    width = len(parts) * vector
    channels = heads * width
    top, bottom = within(row, height, kernel, 1)
    left, right = within(column, columns, kernel, 1)
    corner = image + ((row - kernel // 2) * columns + column - kernel // 2) * channels
    step = taps * width
    for t in range(0, taps, 4):
        a, b, c, d = zeros(lanes), zeros(lanes), zeros(lanes), zeros(lanes)
        for part in range(len(parts)):
            at, mine = e_at + t * width + part * vector, load(x, position + part * vector, lanes)
            a = fma(mine, load(e, at, lanes), a)
            b = fma(mine, load(e, at + width, lanes), b)
            c = fma(mine, load(e, at + 2 * width, lanes), c)
            d = fma(mine, load(e, at + 3 * width, lanes), d)
        for down in range(top, bottom):
            for across in range(left, right):
                there = corner + (down * columns + across) * channels
                at = (t * taps + down * kernel + across) * width
                for part in range(len(parts)):
                    ahead = part * vector
                    both = times(load(x, position + ahead, lanes), load(y, there + ahead, lanes))
                    a = fma(both, load(w, at + ahead, lanes), a)
                    b = fma(both, load(w, at + step + ahead, lanes), b)
                    c = fma(both, load(w, at + 2 * step + ahead, lanes), c)
                    d = fma(both, load(w, at + 3 * step + ahead, lanes), d)
        store(out, out_at + t, totals(a, b, c, d))


@njit(fastmath=FAST)
def mixture(
    numbers: Any,
    numbers_at: Any,
    apart: Any,
    y: Any,
    image: Any,
    row: Any,
    column: Any,
    form: Any,
    sign: Any,
    w: Any,
    e: Any,
    e_at: Any,
    out: Any,
    position: Any,
    parts: Any,
    lanes: Any,
) -> None:
    """out[c] = Σ_s (Σ_t p_t w[t,s,c]) y[n(s),c] + Σ_t p_t e[t,c].

    With `sign` −1, n(s) is the position that has this one as its neighbor s. Its numbers p lie
    `apart` · (columns to the right of the map's first one, rows below that of `numbers_at`) further on; 0
    apart, all are one position's.
    """
    height, columns, heads, kernel = form
    vector, taps = len(lanes), kernel * kernel
    width = len(parts) * vector
    channels = heads * width
    top, bottom = within(row, height, kernel, sign)
    left, right = within(column, columns, kernel, sign)
    for part in range(len(parts)):
        ahead = part * vector
        total = zeros(lanes)
        if e is not None:
            for t in range(taps):
                p = filter_at(numbers, numbers_at + t, None, None, 0, lanes)
                total = fma(p, load(e, e_at + t * width + ahead, lanes), total)
        for down in range(top, bottom):
            for across in range(left, right):
                other = sign * (down - kernel // 2) * columns + sign * (across - kernel // 2)
                p_at = numbers_at + other * apart
                at = (down * kernel + across) * width + ahead
                f = zeros(lanes)
                for t in range(taps):
                    p = filter_at(numbers, p_at + t, None, None, 0, lanes)
                    f = fma(p, load(w, at + t * taps * width, lanes), f)
                there = image + (row * columns + column + other) * channels + ahead
                total = fma(f, load(y, there, lanes), total)
        store(out, position + ahead, total)


@njit(fastmath=FAST)
def softmax(logits: Any, at: Any, taps: Any, four: Any) -> None:
    """Take the softmax in place; the entries that fill up the taps become 0."""
    filled, highest, total = -(-taps // 4) * 4, logits[at], np.float32(0)
    for t in range(taps):
        highest = max(highest, logits[at + t])
    for t in range(taps, filled):
        logits[at + t] = NEVER
    for t in range(at, at + filled, 4):
        store(logits, t, exponential(minus(load(logits, t, four), splat(highest, four))))
    for t in range(at, at + taps):
        total += logits[t]
    for t in range(at, at + taps):
        logits[t] /= total
