"""Logits of a position, their softmax, and the sum."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from ablate.kernels._numba.run import compiled
from ablate.kernels._numba.simd import Place, Vectors
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
)


@compiled
def forward(maps: Maps, weights_of_mix: Weights, out: Any, form: Form, vectors: Vectors) -> None:
    """Logits of a position and head, their softmax, and the sum."""
    query, key, value = maps
    w, of_logits, of_values = weights_of_mix
    height, columns, heads, kernel = form
    parts, lanes = vectors
    width, taps = len(parts) * len(lanes), kernel * kernel
    channels, filled = heads * width, -(-taps // 4) * 4
    for line in prange(out.size // (columns * channels)):
        of_head = Vectors(parts, lanes)  # made here, for a parallel loop takes no tuple of tuples
        row, weights = line % height, np.empty(filled, np.float32)
        image = (line - row) * columns * channels
        for column in range(columns):
            for head in range(heads):
                at = (line * columns + column) * channels + head * width
                position = Position(image + head * width, row, column, head, at)
                mix = Mix(w, of_logits, head * filled * width)
                products(query, key, position, form, mix, Place(weights, 0), of_head)
                softmax(weights, 0, taps)
                mixture(Numbers(weights, 0, 0), value, position, form, Mix(w, of_values, 0), out, of_head)
