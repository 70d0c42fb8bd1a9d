"""Gradients: weights and slopes of a strip of lines and of those beside it, then all that they give."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit, prange

from ablate.kernels._numba.run import FAST, compiled
from ablate.kernels._numba.simd import Place, Vectors, filter_at, fma, load, store, times
from ablate.kernels.slide_attention.numba.pairs import (
    Form,
    Maps,
    Mix,
    Numbers,
    Position,
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


class TapGradients(NamedTuple):
    """Of a position's taps: what logits and weights pull; flat arrays."""

    slopes: Any
    weights: Any
    at: Any  # where those of the position begin, in both


@compiled
def backward(
    grad: Any, maps: Maps, weights_of_mix: Weights, found: Gradients, form: Form, vectors: Vectors
) -> None:
    """Weights and gradients of the logits of a strip and of the lines beside it, then all that they give."""
    query, key, value = maps
    w, e_logits, e_values = weights_of_mix
    of_query, of_key, of_value, of_mix, of_logits, of_values = found
    height, columns, heads, kernel = form
    parts, lanes = vectors
    width, taps, half = len(parts) * len(lanes), kernel * kernel, kernel // 2
    channels, filled = heads * width, -(-taps // 4) * 4
    apart = heads * filled  # numbers of a position
    strips = -(-height // STRIP)
    for strip in prange(query.size // (height * columns * channels) * strips):
        of_head = Vectors(parts, lanes)  # made here, for a parallel loop takes no tuple of tuples
        image, begin = strip // strips, strip % strips * STRIP
        end = min(height, begin + STRIP)
        first, last = max(0, begin - half), min(height, end + half)
        weights = np.empty((last - first) * columns * apart, np.float32)
        slopes, pulls = np.empty_like(weights), np.empty(filled, np.float32)
        of_strip = Gradients(
            of_query, of_key, of_value,
            of_mix[strip * taps * taps * width :],
            of_logits[strip * heads * taps * width :],
            of_values[strip * taps * width :],
        )  # fmt: skip
        for row in range(first, last):
            for column in range(columns):
                for head in range(heads):
                    start = image * height * columns * channels + head * width
                    own = start + (row * columns + column) * channels
                    position = Position(start, row, column, head, own)
                    at = ((row - first) * columns + column) * apart + head * filled
                    mix = Mix(w, e_logits, head * filled * width)
                    products(query, key, position, form, mix, Place(weights, at), of_head)
                    softmax(weights, at, taps)
                    products(grad, value, position, form, Mix(w, e_values, 0), Place(pulls, 0), of_head)
                    mean = np.float32(0)
                    for t in range(taps):
                        mean += weights[at + t] * pulls[t]
                    for t in range(taps):
                        slopes[at + t] = weights[at + t] * (pulls[t] - mean)
                    if begin <= row < end:
                        mixture(Numbers(slopes, at, 0), key, position, form, mix, of_query, of_head)
                        of_taps = TapGradients(slopes, weights, at)
                        pull(maps, grad, position, form, of_taps, of_strip, of_head)
        for row in range(begin, end):
            for column in range(columns):
                for head in range(heads):
                    start = image * height * columns * channels + head * width
                    own = start + (row * columns + column) * channels
                    position = Position(start, row, column, head, own)
                    at = ((row - first) * columns + column) * apart + head * filled
                    mix = Mix(w, e_values, 0)
                    mixture(Numbers(slopes, at, apart), query, position, form, mix, of_key, of_head)
                    mixture(Numbers(weights, at, apart), grad, position, form, mix, of_value, of_head)


@njit(fastmath=FAST)
def pull(
    maps: Maps,
    grad: Any,
    position: Position,
    form: Form,
    of_taps: TapGradients,
    of_strip: Gradients,
    vectors: Vectors,
) -> None:
    """Add a position's part to the gradients of w and of both e."""
    query, key, value = maps
    height, columns, heads, kernel = form
    image, row, column, head, own = position
    slopes, weights, at = of_taps
    of_mix, of_logits, of_values = of_strip.of_mix, of_strip.of_logits, of_strip.of_values
    parts, lanes = vectors
    vector, taps = len(lanes), kernel * kernel
    width = len(parts) * vector
    channels = heads * width
    top, bottom = within(row, height, kernel, 1)
    left, right = within(column, columns, kernel, 1)
    corner = image + ((row - kernel // 2) * columns + column - kernel // 2) * channels
    for part in range(len(parts)):
        ahead = part * vector
        q, g = load(query, own + ahead, lanes), load(grad, own + ahead, lanes)
        for t in range(taps):
            slope = filter_at(slopes, at + t, None, None, 0, lanes)
            weight = filter_at(weights, at + t, None, None, 0, lanes)
            of_logit = (head * taps + t) * width + ahead
            store(of_logits, of_logit, fma(slope, q, load(of_logits, of_logit, lanes)))
            of_value = t * width + ahead
            store(of_values, of_value, fma(weight, g, load(of_values, of_value, lanes)))
        for down in range(top, bottom):
            for across in range(left, right):
                there = corner + (down * columns + across) * channels + ahead
                of_key = times(q, load(key, there, lanes))
                of_value = times(g, load(value, there, lanes))
                for t in range(taps):
                    slope = filter_at(slopes, at + t, None, None, 0, lanes)
                    weight = filter_at(weights, at + t, None, None, 0, lanes)
                    pair = (t * taps + down * kernel + across) * width + ahead
                    both = fma(slope, of_key, fma(weight, of_value, load(of_mix, pair, lanes)))
                    store(of_mix, pair, both)
