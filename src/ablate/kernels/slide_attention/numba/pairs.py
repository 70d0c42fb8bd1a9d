"""Pairs of a position with its mixed neighbors: products, sums, and their softmax."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from ablate.kernels._numba.run import FAST
from ablate.kernels._numba.simd import (
    FOUR,
    Place,
    Vectors,
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


class Form(NamedTuple):
    """Sizes of the attention."""

    height: Any
    columns: Any
    heads: Any
    kernel: Any


class Position(NamedTuple):
    """A position of a map, in one head."""

    image: Any  # where its image's channels of that head begin
    row: Any
    column: Any
    head: Any
    at: Any  # where its own channels begin


class Numbers(NamedTuple):
    """A number a tap, of a position or of all of a map."""

    array: Any
    at: Any  # where those of the position begin
    apart: Any  # from one position's to the next one's; 0 for one position's alone


class Mix(NamedTuple):
    """Weights w of the mixture, and e of a head; flat arrays."""

    w: Any
    e: Any
    e_at: Any  # where e of the head begins


@njit(fastmath=FAST)
def within(position: Any, length: Any, kernel: Any, sign: Any) -> Any:
    """The first neighbor along an axis that lies in the map, and the one after the last."""
    half = kernel // 2
    if sign > 0:
        return max(0, half - position), min(kernel, length - position + half)
    return max(0, position + half - length + 1), min(kernel, position + half + 1)


@njit(fastmath=FAST)
def products(x: Any, y: Any, position: Position, form: Form, mix: Mix, out: Place, vectors: Vectors) -> None:
    """out[t] = Σ_c x[c] (Σ_s w[t,s,c] y[n(s),c] + e[t,c]), four taps at a time."""
    height, columns, heads, kernel = form
    image, row, column, _, own = position
    w, e, e_at = mix
    parts, lanes = vectors
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
            at, mine = e_at + t * width + part * vector, load(x, own + part * vector, lanes)
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
                    both = times(load(x, own + ahead, lanes), load(y, there + ahead, lanes))
                    a = fma(both, load(w, at + ahead, lanes), a)
                    b = fma(both, load(w, at + step + ahead, lanes), b)
                    c = fma(both, load(w, at + 2 * step + ahead, lanes), c)
                    d = fma(both, load(w, at + 3 * step + ahead, lanes), d)
        store(out.array, out.at + t, totals(a, b, c, d))


@njit(fastmath=FAST)
def mixture(
    numbers: Numbers, y: Any, position: Position, form: Form, mix: Mix, out: Any, vectors: Vectors
) -> None:
    """out[c] = Σ_s (Σ_t p_t w[t,s,c]) y[n(s),c] + Σ_t p_t e[t,c].

    Where `numbers` lie apart, n(s) is the position that has this one as its neighbor s, the numbers p are
    those of n(s), and there is no e.
    """
    height, columns, heads, kernel = form
    image, row, column, _, own = position
    w, e, e_at = mix
    parts, lanes = vectors
    vector, taps, sign = len(lanes), kernel * kernel, 1 if numbers.apart == 0 else -1
    width = len(parts) * vector
    channels = heads * width
    top, bottom = within(row, height, kernel, sign)
    left, right = within(column, columns, kernel, sign)
    for part in range(len(parts)):
        ahead = part * vector
        total = zeros(lanes)
        if numbers.apart == 0:
            for t in range(taps):
                p = filter_at(numbers.array, numbers.at + t, None, None, 0, lanes)
                total = fma(p, load(e, e_at + t * width + ahead, lanes), total)
        for down in range(top, bottom):
            for across in range(left, right):
                other = sign * (down - kernel // 2) * columns + sign * (across - kernel // 2)
                p_at = numbers.at + other * numbers.apart
                at = (down * kernel + across) * width + ahead
                f = zeros(lanes)
                for t in range(taps):
                    p = filter_at(numbers.array, p_at + t, None, None, 0, lanes)
                    f = fma(p, load(w, at + t * taps * width, lanes), f)
                there = image + (row * columns + column + other) * channels + ahead
                total = fma(f, load(y, there, lanes), total)
        store(out, own + ahead, total)


@njit(fastmath=FAST)
def softmax(logits: Any, at: Any, taps: Any) -> None:
    """Take the softmax in place; the entries that fill up the taps become 0."""
    filled, highest, total = -(-taps // 4) * 4, logits[at], np.float32(0)
    for t in range(taps):
        highest = max(highest, logits[at + t])
    for t in range(taps, filled):
        logits[at + t] = NEVER
    for t in range(at, at + filled, 4):
        store(logits, t, exponential(minus(load(logits, t, FOUR), splat(highest, FOUR))))
    for t in range(at, at + taps):
        total += logits[t]
    for t in range(at, at + taps):
        logits[t] /= total
