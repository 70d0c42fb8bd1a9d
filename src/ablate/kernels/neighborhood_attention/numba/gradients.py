"""Gradients, once from the queries and once from the keys."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit, prange

from ablate.kernels._numba.run import FAST, compiled
from ablate.kernels._numba.simd import (
    FOUR,
    SIXTEEN,
    Place,
    Vectors,
    exponential,
    four_times,
    load,
    minus,
    plus,
    splat,
    store,
    times,
)
from ablate.kernels._numba.taps import TapBlocks, TapList
from ablate.kernels.neighborhood_attention.numba.axial import of_queries, of_readers, pull_axial
from ablate.kernels.neighborhood_attention.numba.forward import Form
from ablate.kernels.neighborhood_attention.numba.pairs import (
    AxialTerms,
    Block,
    Columns,
    Rows,
    Terms,
    absent_logits,
    apart_of,
    of_block,
    products,
    weighted,
)


class QueryMaps(NamedTuple):
    """Flat arrays of float32."""

    query: Any
    grad: Any
    key: Any
    value: Any
    rows: Any
    mean: Any
    of_query: Any  # filled
    of_bias: Any  # added to
    of_axial: Any  # added to


class KeyMaps(NamedTuple):
    """Flat arrays of float32."""

    key: Any
    value: Any
    query: Any
    grad: Any
    rows: Any
    mean: Any
    of_key: Any  # filled
    of_value: Any  # filled


@compiled
def from_queries(
    maps: QueryMaps,
    terms: Terms,
    axial: Any,
    vertical: TapList,
    horizontal: TapBlocks,
    form: Form,
    vectors: Vectors,
) -> None:
    """Gradients of the queries and of their axial terms, and of the bias for each line of the maps.

    `of_bias` is left alone unless `needs_bias`.
    """
    query, grad, key, value, rows, mean, of_query, of_bias, of_axial = maps
    pair_bias, bias, absent, whole = terms
    row_first, row_other, row_tap, row_offset = vertical
    first, other, tap, offset, regular = horizontal
    heads, kernel, axis, room, counts, width, needs_bias = form
    parts, lanes = vectors
    width_of_head = len(parts) * len(lanes)
    channels, entries, offsets = heads * width_of_head, len(other), axis * axis
    height, span = len(row_first) - 1, kernel + 3
    for line in prange(of_query.size // (width * channels)):
        of_head = Vectors(parts, lanes)  # made here, for a parallel loop takes no tuple of tuples
        image, row = line // height, line % height
        weights, pulls = np.empty(room * 4, np.float32), np.empty(room * 4, np.float32)
        nothing, scratch = np.zeros(room * 4, np.float32), np.empty(4, np.float32)
        common = np.zeros(heads * kernel * span * 4, np.float32)  # of all regular blocks, pair by pair
        met = Rows(row_other, row_tap, row_offset, row_first[row], row_first[row + 1])
        shared = first[0]
        for block in range(len(first) - 1):
            begin, end, left = first[block], first[block + 1], width - 4 * block
            columns = Columns(other, tap, offset, begin, end)
            apart = apart_of(left, channels)
            near, far = apart_of(left, 1), apart_of(left, heads * 2 * axis)
            for head in range(heads):
                position = (line * width + 4 * block) * channels + head * width_of_head
                place = image * height * width * channels + head * width_of_head
                mine = Block(position, apart, left, channels, width * channels)
                at = ((image * heads + head) * height + row) * width + 4 * block
                high = four_times(of_block(rows, at, near, scratch))
                middle = four_times(of_block(mean, at, near, scratch))
                own_bias = Place(of_bias, (line * heads + head) * offsets)
                own = ((line * width + 4 * block) * heads + head) * 2 * axis
                axial_terms = AxialTerms(own, heads * 2 * axis, far, axis)
                if axial is not None:
                    biases = Place(pair_bias, head * axis * entries * 4)
                    of_queries(biases, axial, axial_terms, met, columns, weights)
                n = 0
                for each in range(met.begin, met.end):
                    start = place + row_other[each] * width * channels
                    added = Place(pair_bias, ((head * axis + row_offset[each]) * entries + begin) * 4)
                    if axial is not None:
                        added = Place(weights, n)
                    products(query, mine, Place(key, start), columns, added, Place(weights, n), of_head)
                    none = Place(nothing, 0)
                    products(grad, mine, Place(value, start), columns, none, Place(pulls, n), of_head)
                    n += 4 * (end - begin)
                for u in range(0, n, 16):
                    weight = exponential(minus(load(weights, u, SIXTEEN), high))
                    store(pulls, u, times(weight, minus(load(pulls, u, SIXTEEN), middle)))
                weighted(pulls, Place(key, place), met, columns, of_query, mine, of_head)
                if axial is not None:
                    pull_axial(pulls, of_axial, axial_terms, met, columns, min(left, 4))
                if needs_bias:
                    if regular[block]:
                        shared = begin
                        for u in range(0, n, 4):
                            v = head * kernel * span * 4 + u
                            store(common, v, plus(load(common, v, FOUR), load(pulls, u, FOUR)))
                    else:
                        _pull_bias(pulls, own_bias, axis, met, columns, min(left, 4))
                if regular[block] and met.end - met.begin == kernel:
                    continue
                if counts and (not whole[block] or met.end - met.begin < kernel):
                    m = absent_logits(
                        Place(weights, 0), bias[head * offsets :], absent[block * kernel * 4 :],
                        met, kernel, axial, axial_terms,
                    )  # fmt: skip
                    high_of_block = of_block(rows, at, near, scratch)
                    for u in range(0, m, 4):
                        store(weights, u, exponential(minus(load(weights, u, FOUR), high_of_block)))
                        for k in range(min(left, 4)):
                            pull = weights[u + k] * mean[at + k]
                            if needs_bias:
                                of_bias[own_bias.at + u // 4] -= pull
                            if axial is not None:
                                own_terms = own + k * heads * 2 * axis
                                of_axial[own_terms + u // 4 // kernel] -= pull
                                of_axial[own_terms + axis + u // 4 % kernel] -= pull
        if needs_bias:
            columns = Columns(other, tap, offset, shared, shared + span if shared > 0 else 0)
            for head in range(heads):
                own_bias = Place(of_bias, (line * heads + head) * offsets)
                _pull_bias(common[head * kernel * span * 4 :], own_bias, axis, met, columns, 4)


@njit(fastmath=FAST)
def _pull_bias(pulls: Any, of_bias: Place, axis: Any, rows: Rows, columns: Columns, positions: Any) -> None:
    """Add what each pair of a block pulls to the entry of its offset."""
    number = 0
    for row in range(rows.begin, rows.end):
        table = of_bias.at + rows.offset[row] * axis
        for entry in range(4 * columns.begin, 4 * columns.end, 4):
            for k in range(positions):
                if columns.tap[entry + k] >= 0:
                    of_bias.array[table + columns.offset[entry + k]] += pulls[number + k]
            number += 4


@compiled
def from_keys(
    maps: KeyMaps,
    terms: Terms,
    axial: Any,
    vertical: TapList,
    horizontal: TapBlocks,
    form: Form,
    vectors: Vectors,
) -> None:
    """Gradients of keys and values: what a block meets are queries, with their rows and means."""
    key, value, query, grad, rows, mean, of_key, of_value = maps
    pair_bias, _, _, _ = terms
    row_first, row_other, row_tap, row_offset = vertical
    first, other, tap, offset, _ = horizontal
    heads, _, axis, room, _, width, _ = form
    parts, lanes = vectors
    width_of_head = len(parts) * len(lanes)
    channels, entries = heads * width_of_head, len(other)
    height = len(row_first) - 1
    for line in prange(of_key.size // (width * channels)):
        of_head = Vectors(parts, lanes)  # made here, for a parallel loop takes no tuple of tuples
        image, row = line // height, line % height
        weights, pulls = np.empty(room * 4, np.float32), np.empty(room * 4, np.float32)
        nothing, middle = np.zeros(room * 4, np.float32), np.empty(room * 4, np.float32)
        met = Rows(row_other, row_tap, row_offset, row_first[row], row_first[row + 1])
        for block in range(len(first) - 1):
            begin, end, left = first[block], first[block + 1], width - 4 * block
            columns = Columns(other, tap, offset, begin, end)
            apart = apart_of(left, channels)
            for head in range(heads):
                position = (line * width + 4 * block) * channels + head * width_of_head
                place = image * height * width * channels + head * width_of_head
                mine = Block(position, apart, left, channels, width * channels)
                n = 0
                for each in range(met.begin, met.end):
                    start = place + row_other[each] * width * channels
                    added = Place(pair_bias, ((head * axis + row_offset[each]) * entries + begin) * 4)
                    at = ((image * heads + head) * height + row_other[each]) * width
                    if axial is not None:
                        of_line = ((image * height + row_other[each]) * width * heads + head) * 2 * axis
                        theirs, apart_terms = Place(axial, of_line), heads * 2 * axis
                        of_readers(
                            added, theirs, apart_terms, row_offset[each], axis, columns, Place(weights, n)
                        )
                        added = Place(weights, n)
                    products(key, mine, Place(query, start), columns, added, Place(weights, n), of_head)
                    none = Place(nothing, 0)
                    products(value, mine, Place(grad, start), columns, none, Place(pulls, n), of_head)
                    for entry in range(begin, end):
                        high = splat(rows[at + other[entry]], FOUR)
                        store(weights, n, minus(load(weights, n, FOUR), high))
                        store(middle, n, splat(mean[at + other[entry]], FOUR))
                        n += 4
                for u in range(0, n, 16):
                    weight = exponential(load(weights, u, SIXTEEN))
                    store(weights, u, weight)
                    pull = minus(load(pulls, u, SIXTEEN), load(middle, u, SIXTEEN))
                    store(pulls, u, times(weight, pull))
                weighted(pulls, Place(query, place), met, columns, of_key, mine, of_head)
                weighted(weights, Place(grad, place), met, columns, of_value, mine, of_head)
