"""The loop of `static_grad`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import prange

from ablate.kernels._numba.run import compiled
from ablate.kernels._numba.simd import fma, load, plus, splat, store, times, zeros
from ablate.kernels._numba.taps import TapList, TapRuns


class Maps(NamedTuple):
    """Flat arrays of float32."""

    outputs: Any
    values: Any
    filters: Any
    of_multiply: Any  # filled
    of_add: Any  # filled


class Form(NamedTuple):
    """Sizes of the maps."""

    written: Any  # (rows, columns) of the outputs
    size: Any  # (height, width) of the values
    heads: Any
    kernel: Any
    axis: Any  # offsets per axis
    chunks: Any  # vectors in a head


@compiled
def static_grad_loop(maps: Maps, vertical: TapList, horizontal: TapRuns, form: Form, lanes: Any) -> None:
    """One vector of channels of a group of images at a time; its two tables stay in the nearest cache."""
    outputs, values, filters, of_multiply, of_add = maps
    row_first, row_other, row_tap, row_offset = vertical
    run_tap, run_offset, run_begin, run_length, run_other, run_step = horizontal
    written, size, heads, kernel, axis, chunks = form
    rows, columns = written
    height, width = size
    taps, vector = kernel * kernel, len(lanes)
    parts = heads * chunks
    channels, all_taps, offsets = parts * vector, heads * taps, axis * axis
    groups, images = of_add.size // (offsets * channels), outputs.size // (rows * columns * channels)
    for piece in prange(groups * parts):
        group, channel, head = piece // parts, piece % parts * vector, piece % parts // chunks
        multiplied, added = np.zeros(offsets * vector, np.float32), np.zeros(offsets * vector, np.float32)
        for line in range(group * images // groups * rows, (group + 1) * images // groups * rows):
            image, row = line // rows, line % rows
            for entry in range(row_first[row], row_first[row + 1]):
                met = (image * height + row_other[entry]) * width
                for n in range(len(run_tap)):
                    p = (line * columns + run_begin[n]) * channels + channel
                    q = (met + run_other[n]) * channels + channel
                    f = (line * columns + run_begin[n]) * all_taps + head * taps
                    f += row_tap[entry] * kernel + run_tap[n]
                    step = run_step[n] * channels
                    place = (row_offset[entry] * axis + run_offset[n]) * vector
                    a, b = load(added, place, lanes), zeros(lanes)
                    c, d = load(multiplied, place, lanes), zeros(lanes)
                    for _ in range(run_length[n] // 2):
                        x = times(load(outputs, p, lanes), load(values, q, lanes))
                        y = times(load(outputs, p + channels, lanes), load(values, q + step, lanes))
                        a, b = plus(a, x), plus(b, y)
                        c = fma(splat(filters[f], lanes), x, c)
                        d = fma(splat(filters[f + all_taps], lanes), y, d)
                        p, q, f = p + 2 * channels, q + 2 * step, f + 2 * all_taps
                    if run_length[n] % 2:
                        x = times(load(outputs, p, lanes), load(values, q, lanes))
                        a, c = plus(a, x), fma(splat(filters[f], lanes), x, c)
                    store(added, place, plus(a, b))
                    store(multiplied, place, plus(c, d))
        for n in range(offsets):
            target = (group * offsets + n) * channels + channel
            store(of_add, target, load(added, n * vector, lanes))
            store(of_multiply, target, load(multiplied, n * vector, lanes))
