"""Logits of a block, their softmax, and the sum."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import prange

from ablate.kernels._numba.run import compiled
from ablate.kernels._numba.simd import (
    FOUR,
    SIXTEEN,
    Place,
    Vectors,
    exponential,
    folded_maximum,
    folded_sum,
    four_times,
    larger,
    load,
    minus,
    plus,
    splat,
    store,
    times,
    zeros,
)
from ablate.kernels._numba.taps import TapBlocks, TapList
from ablate.kernels.neighborhood_attention.numba.axial import of_queries
from ablate.kernels.neighborhood_attention.numba.pairs import (
    NEVER,
    AxialTerms,
    Block,
    Columns,
    Rows,
    Terms,
    absent_logits,
    apart_of,
    products,
    weighted,
)


class Maps(NamedTuple):
    """Flat arrays of float32."""

    query: Any
    key: Any
    value: Any
    out: Any
    rows: Any


class Form(NamedTuple):
    """Sizes of the attention."""

    heads: Any
    kernel: Any
    axis: Any  # offsets per axis
    room: Any  # pairs of one position, at most, in whole vectors
    counts: Any  # taps beyond the map take part
    width: Any  # of the map
    needs_bias: Any  # its gradient is needed


@compiled
def forward(
    maps: Maps,
    terms: Terms,
    axial: Any,
    vertical: TapList,
    horizontal: TapBlocks,
    form: Form,
    vectors: Vectors,
) -> None:
    """Logits of a block, their softmax, and the sum, one head at a time.

    `axial` is an argument of its own, because Numba leaves out branches only for arguments that are None.
    """
    query, key, value, out, rows = maps
    pair_bias, bias, absent, whole = terms
    row_first, row_other, row_tap, row_offset = vertical
    first, other, tap, offset, _ = horizontal
    heads, kernel, axis, room, counts, width, _ = form
    parts, lanes = vectors
    width_of_head = len(parts) * len(lanes)
    channels, entries = heads * width_of_head, len(other)
    height = len(row_first) - 1
    for line in prange(out.size // (width * channels)):
        of_head = Vectors(parts, lanes)  # made here, for a parallel loop takes no tuple of tuples
        image, row = line // height, line % height
        logits, scratch = np.empty(room * 4, np.float32), np.empty(8, np.float32)
        rows_met = Rows(row_other, row_tap, row_offset, row_first[row], row_first[row + 1])
        for block in range(len(first) - 1):
            begin, end, left = first[block], first[block + 1], width - 4 * block
            columns = Columns(other, tap, offset, begin, end)
            apart, far = apart_of(left, channels), apart_of(left, heads * 2 * axis)
            for head in range(heads):
                position = (line * width + 4 * block) * channels + head * width_of_head
                place = image * height * width * channels + head * width_of_head
                mine = Block(position, apart, left, channels, width * channels)
                own = ((line * width + 4 * block) * heads + head) * 2 * axis
                of_axial = AxialTerms(own, heads * 2 * axis, far, axis)
                if axial is not None:
                    biases = Place(pair_bias, head * axis * entries * 4)
                    of_queries(biases, axial, of_axial, rows_met, columns, logits)
                n = 0
                for each in range(rows_met.begin, rows_met.end):
                    theirs = Place(key, place + row_other[each] * width * channels)
                    added = Place(pair_bias, ((head * axis + row_offset[each]) * entries + begin) * 4)
                    if axial is not None:
                        added = Place(logits, n)
                    products(query, mine, theirs, columns, added, Place(logits, n), of_head)
                    n += 4 * (end - begin)
                m = n
                if counts and (not whole[block] or rows_met.end - rows_met.begin < kernel):
                    m = absent_logits(
                        Place(logits, n), bias[head * axis * axis :], absent[block * kernel * 4 :],
                        rows_met, kernel, axial, of_axial,
                    )  # fmt: skip
                while m % 16:
                    store(logits, m, splat(NEVER, FOUR))
                    m += 4
                high = load(logits, 0, SIXTEEN)
                for u in range(16, m, 16):
                    high = larger(high, load(logits, u, SIXTEEN))
                highest = folded_maximum(high)
                high, sums = four_times(highest), zeros(SIXTEEN)
                for u in range(0, m, 16):
                    weight = exponential(minus(load(logits, u, SIXTEEN), high))
                    store(logits, u, weight)
                    sums = plus(sums, weight)
                store(scratch, 0, folded_sum(sums))
                store(scratch, 4, highest)
                at = ((image * heads + head) * height + row) * width + 4 * block
                for k in range(4):
                    if k < left:
                        rows[at + k] = scratch[4 + k] + np.log(scratch[k])
                    scratch[k] = 1 / scratch[k]
                scale = four_times(load(scratch, 0, FOUR))
                for u in range(0, n, 16):
                    store(logits, u, times(load(logits, u, SIXTEEN), scale))
                weighted(logits, Place(value, place), rows_met, columns, out, mine, of_head)
