"""Gradients: weights and slopes of a strip of lines and of those beside it, then all that they give."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit, prange

from ablate.kernels._numba.run import FAST, compiled
from ablate.kernels._numba.simd import filter_at, fma, load, store, times
from ablate.kernels.slide_attention.numba.pairs import (
    Maps,
    Vectors,
    Weights,
    mixture,
    products,
    softmax,
    within,
)

STRIP = 8  # lines of a map that are differentiated together


class Gradients(NamedTuple):
    """Flat arrays of float32."""

    of_query: Any  # filled
    of_key: Any  # filled
    of_value: Any  # filled
    of_mix: Any  # (strips, taps, K², d), added to
    of_logits: Any  # (strips, heads, taps, d), added to
    of_values: Any  # (strips, taps, d), added to


@compiled
def backward(
    grad: Any, maps: Maps, weights_of_mix: Weights, found: Gradients, form: Any, vectors: Vectors
) -> None:
    """Weights and gradients of the logits of a strip and of the lines beside it, then all that they give."""
    query, key, value = maps
    w, e_logits, e_values = weights_of_mix
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
                    products(
                        query, position, key, start, row, column, form, w, e_logits, e_at, weights, at,
                        parts, lanes,
                    )  # fmt: skip
                    softmax(weights, at, taps, four)
                    products(
                        grad, position, value, start, row, column, form, w, e_values, 0, pulls, 0,
                        parts, lanes,
                    )  # fmt: skip
                    mean = np.float32(0)
                    for t in range(taps):
                        mean += weights[at + t] * pulls[t]
                    for t in range(taps):
                        slopes[at + t] = weights[at + t] * (pulls[t] - mean)
                    if begin <= row < end:
                        mixture(
                            slopes, at, 0, key, start, row, column, form, 1, w, e_logits, e_at, of_query,
                            position, parts, lanes,
                        )  # fmt: skip
                        pull(
                            query, grad, position, key, value, start, row, column, form, slopes, weights, at,
                            of_mix, of_logits, of_values, strip, head, parts, lanes,
                        )  # fmt: skip
        for row in range(begin, end):
            for column in range(columns):
                for head in range(heads):
                    start = image * height * columns * channels + head * width
                    position = start + (row * columns + column) * channels
                    at = ((row - first) * columns + column) * apart + head * filled
                    mixture(
                        slopes, at, apart, query, start, row, column, form, -1, w, None, 0, of_key, position,
                        parts, lanes,
                    )  # fmt: skip
                    mixture(
                        weights, at, apart, grad, start, row, column, form, -1, w, None, 0, of_value,
                        position, parts, lanes,
                    )  # fmt: skip


@njit(fastmath=FAST)
def pull(
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
    top, bottom = within(row, height, kernel, 1)
    left, right = within(column, columns, kernel, 1)
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
