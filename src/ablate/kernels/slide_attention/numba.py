"""Attention over mixed neighbors on a CPU: loops compiled by Numba, float32, no map of a tap in memory.

Two sums do all the work. `_products` has what pairs a position with its K² mixed neighbors, a number a
tap: Σ_c x[c] (Σ_s w[t,s,c] y[n(s),c] + e[t,c]). `_mixture` sums neighbors by the filter that numbers a
tap make of w: Σ_s (Σ_t p_t w[t,s,c]) y[n(s),c] + Σ_t p_t e[t,c]. Gradients are the same sums with other
operands; that of w is summed by strips of lines, each strip on its own, so that the same input gives the
same bits.

Operations, stage 1 of Swin-T, batch 8 (56×56, 96 channels, K = 3): 434 M multiply-accumulates forward and
1.5 G backward, 0.1 G of them to compute again what two strips need. The weights w of a head of 32 channels
are 10 kB and stay in the first cache. Bound by arithmetic.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit, prange
from torch import Tensor

from ablate.kernels._numba.run import FAST, compiled, flat, run
from ablate.kernels._numba.simd import (
    exponential,
    filter_at,
    fma,
    lanes_for,
    load,
    minus,
    splat,
    store,
    times,
    totals,
    zeros,
)
from ablate.kernels.slide_attention.inputs import Inputs

NEVER = np.float32(-1e30)  # the logit of what fills up the taps to a multiple of four
STRIP = 8  # lines of a map that are differentiated together


def attention(inputs: Inputs, kernel: int) -> Tensor:
    """Output (B, H, W, C); see `reference`."""
    query, key, value, mix, own, table = inputs
    out = torch.empty(query.shape)
    run(
        _forward,
        Maps(*map(flat, (query, key, value))),
        Weights(*map(flat, _weights(mix, own, table))),
        flat(out),
        _form(query, table, kernel),
        _vectors(mix.shape[0]),
    )
    return out.to(query.dtype)


def backward(grad: Tensor, inputs: Inputs, kernel: int) -> tuple[Tensor, ...]:
    """Gradients of the six operands; see `reference`."""
    query, key, value, mix, own, table = inputs
    (batch, height), heads = query.shape[:2], table.shape[0]
    taps, width = kernel**2, mix.shape[0]
    strips = batch * -(-height // STRIP)
    of_maps = [torch.empty(query.shape) for _ in range(3)]
    of_mix = torch.zeros(strips, taps, taps, width)
    of_logits, of_values = torch.zeros(strips, heads, taps, width), torch.zeros(strips, taps, width)
    run(
        _backward,
        flat(grad),
        Maps(*map(flat, (query, key, value))),
        Weights(*map(flat, _weights(mix, own, table))),
        Gradients(*map(flat, (*of_maps, of_mix, of_logits, of_values))),
        _form(query, table, kernel),
        _vectors(width),
    )
    of_query, of_key, of_value = (x.to(query.dtype) for x in of_maps)
    of_logits, of_values = of_logits.sum(0), of_values.sum(0)
    of_own = (of_logits.sum(0) + of_values).T
    return (
        of_query,
        of_key,
        of_value,
        of_mix.sum(0).permute(2, 0, 1).to(mix.dtype, copy=True).contiguous(),
        of_own.to(own.dtype).contiguous(),
        of_logits.sum(-1).to(table.dtype),
    )


def _weights(mix: Tensor, own: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """w (taps, K², d), e of logits (heads, taps, d) and of values (taps, d), taps filled up to fours."""
    filling = -table.shape[1] % 4
    of_values = own.float().T
    of_logits = of_values + table.float()[..., None]
    return (
        F.pad(mix.float().permute(1, 2, 0), (0, 0, 0, 0, 0, filling)),
        F.pad(of_logits, (0, 0, 0, filling)),
        F.pad(of_values, (0, 0, 0, filling)),
    )


def _form(query: Tensor, table: Tensor, kernel: int) -> tuple[int, ...]:
    return (*query.shape[1:3], table.shape[0], kernel)


def _vectors(width: int) -> Vectors:
    """Vectors of a head of `width` channels."""
    lanes = lanes_for(width)
    return Vectors((0,) * (width // len(lanes)), lanes, (0,) * 4)


@njit(fastmath=FAST)
def _within(position: Any, length: Any, kernel: Any, sign: Any) -> Any:
    """The first neighbor along an axis that lies in the map, and the one after the last."""
    half = kernel // 2
    if sign > 0:
        return max(0, half - position), min(kernel, length - position + half)
    return max(0, position + half - length + 1), min(kernel, position + half + 1)


@njit(fastmath=FAST)
def _products(
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
    top, bottom = _within(row, height, kernel, 1)
    left, right = _within(column, columns, kernel, 1)
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
def _mixture(
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
    top, bottom = _within(row, height, kernel, sign)
    left, right = _within(column, columns, kernel, sign)
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
def _softmax(logits: Any, at: Any, taps: Any, four: Any) -> None:
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


class Gradients(NamedTuple):
    """Flat arrays of float32."""

    of_query: Any  # filled
    of_key: Any  # filled
    of_value: Any  # filled
    of_mix: Any  # (strips, taps, K², d), added to
    of_logits: Any  # (strips, heads, taps, d), added to
    of_values: Any  # (strips, taps, d), added to


class Vectors(NamedTuple):
    """Tuples whose lengths the compiler knows."""

    parts: Any  # vectors in a head
    lanes: Any  # of a vector
    four: Any


@compiled
def _forward(maps: Maps, mixture: Weights, out: Any, form: Any, vectors: Vectors) -> None:
    """Logits of a position and head, their softmax, and the sum."""
    query, key, value = maps
    w, of_logits, of_values = mixture
    parts, lanes, four = vectors
    height, columns, heads, kernel = form
    width, taps = len(parts) * len(lanes), kernel * kernel
    channels, filled = heads * width, -(-taps // 4) * 4
    for line in prange(out.size // (columns * channels)):
        row, weights = line % height, np.empty(filled, np.float32)
        image = (line - row) * columns * channels
        for column in range(columns):
            for head in range(heads):
                start, position = image + head * width, (line * columns + column) * channels + head * width
                _products(
                    query, position, key, start, row, column, form, w, of_logits, head * filled * width,
                    weights, 0, parts, lanes,
                )  # fmt: skip
                _softmax(weights, 0, taps, four)
                _mixture(
                    weights, 0, 0, value, start, row, column, form, 1, w, of_values, 0, out, position,
                    parts, lanes,
                )  # fmt: skip


@compiled
def _backward(grad: Any, maps: Maps, mixture: Weights, found: Gradients, form: Any, vectors: Vectors) -> None:
    """Weights and gradients of the logits of a strip and of the lines beside it, then all that they give."""
    query, key, value = maps
    w, e_logits, e_values = mixture
    of_query, of_key, of_value, of_mix, of_logits, of_values = found
    parts, lanes, four = vectors
    height, columns, heads, kernel = form
    width, taps, half = len(parts) * len(lanes), kernel * kernel, kernel // 2
    channels, filled = heads * width, -(-taps // 4) * 4
    apart = heads * filled  # numbers of a position
    strips = -(-height // STRIP)
    for strip in prange(query.size // (height * columns * channels) * strips):
        image, begin = strip // strips, strip % strips * STRIP
        end = min(height, begin + STRIP)
        first, last = max(0, begin - half), min(height, end + half)
        weights = np.empty((last - first) * columns * apart, np.float32)
        slopes, pulls = np.empty_like(weights), np.empty(filled, np.float32)
        for row in range(first, last):
            for column in range(columns):
                for head in range(heads):
                    start = image * height * columns * channels + head * width
                    position = start + (row * columns + column) * channels
                    at = ((row - first) * columns + column) * apart + head * filled
                    e_at = head * filled * width
                    _products(
                        query, position, key, start, row, column, form, w, e_logits, e_at, weights, at,
                        parts, lanes,
                    )  # fmt: skip
                    _softmax(weights, at, taps, four)
                    _products(
                        grad, position, value, start, row, column, form, w, e_values, 0, pulls, 0,
                        parts, lanes,
                    )  # fmt: skip
                    mean = np.float32(0)
                    for t in range(taps):
                        mean += weights[at + t] * pulls[t]
                    for t in range(taps):
                        slopes[at + t] = weights[at + t] * (pulls[t] - mean)
                    if begin <= row < end:
                        _mixture(
                            slopes, at, 0, key, start, row, column, form, 1, w, e_logits, e_at, of_query,
                            position, parts, lanes,
                        )  # fmt: skip
                        _pull(
                            query, grad, position, key, value, start, row, column, form, slopes, weights, at,
                            of_mix, of_logits, of_values, strip, head, parts, lanes,
                        )  # fmt: skip
        for row in range(begin, end):
            for column in range(columns):
                for head in range(heads):
                    start = image * height * columns * channels + head * width
                    position = start + (row * columns + column) * channels
                    at = ((row - first) * columns + column) * apart + head * filled
                    _mixture(
                        slopes, at, apart, query, start, row, column, form, -1, w, None, 0, of_key, position,
                        parts, lanes,
                    )  # fmt: skip
                    _mixture(
                        weights, at, apart, grad, start, row, column, form, -1, w, None, 0, of_value,
                        position, parts, lanes,
                    )  # fmt: skip


@njit(fastmath=FAST)
def _pull(
    query: Any,
    grad: Any,
    position: Any,
    key: Any,
    value: Any,
    image: Any,
    row: Any,
    column: Any,
    form: Any,
    slopes: Any,
    weights: Any,
    at: Any,
    of_mix: Any,
    of_logits: Any,
    of_values: Any,
    strip: Any,
    head: Any,
    parts: Any,
    lanes: Any,
) -> None:
    """Add a position's part to the gradients of w and of both e."""
    height, columns, heads, kernel = form
    vector, taps = len(lanes), kernel * kernel
    width = len(parts) * vector
    channels = heads * width
    top, bottom = _within(row, height, kernel, 1)
    left, right = _within(column, columns, kernel, 1)
    corner = image + ((row - kernel // 2) * columns + column - kernel // 2) * channels
    for part in range(len(parts)):
        ahead = part * vector
        q, g = load(query, position + ahead, lanes), load(grad, position + ahead, lanes)
        for t in range(taps):
            slope = filter_at(slopes, at + t, None, None, 0, lanes)
            weight = filter_at(weights, at + t, None, None, 0, lanes)
            of_logit = ((strip * heads + head) * taps + t) * width + ahead
            store(of_logits, of_logit, fma(slope, q, load(of_logits, of_logit, lanes)))
            of_value = (strip * taps + t) * width + ahead
            store(of_values, of_value, fma(weight, g, load(of_values, of_value, lanes)))
        for down in range(top, bottom):
            for across in range(left, right):
                there = corner + (down * columns + across) * channels + ahead
                of_key = times(q, load(key, there, lanes))
                of_value = times(g, load(value, there, lanes))
                for t in range(taps):
                    slope = filter_at(slopes, at + t, None, None, 0, lanes)
                    weight = filter_at(weights, at + t, None, None, 0, lanes)
                    pair = ((strip * taps + t) * taps + down * kernel + across) * width + ahead
                    both = fma(slope, of_key, fma(weight, of_value, load(of_mix, pair, lanes)))
                    store(of_mix, pair, both)
