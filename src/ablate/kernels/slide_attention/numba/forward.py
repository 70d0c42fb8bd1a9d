"""Logits of a position, their softmax, and the sum."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from ablate.kernels._numba.run import compiled
from ablate.kernels.slide_attention.numba.pairs import Maps, Vectors, Weights, mixture, products, softmax


@compiled
def forward(maps: Maps, weights_of_mix: Weights, out: Any, form: Any, vectors: Vectors) -> None:
    """Logits of a position and head, their softmax, and the sum."""
    query, key, value = maps
    w, of_logits, of_values = weights_of_mix
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
                products(
                    query, position, key, start, row, column, form, w, of_logits, head * filled * width,
                    weights, 0, parts, lanes,
                )  # fmt: skip
                softmax(weights, 0, taps, four)
                mixture(
                    weights, 0, 0, value, start, row, column, form, 1, w, of_values, 0, out, position,
                    parts, lanes,
                )  # fmt: skip
