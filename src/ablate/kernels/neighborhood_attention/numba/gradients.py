"""Gradients, once from the queries and once from the keys."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit, prange

from ablate.kernels._numba.run import FAST, compiled
from ablate.kernels._numba.simd import exponential, four_times, load, minus, plus, splat, store, times
from ablate.kernels._numba.taps import TapBlocks, TapList
from ablate.kernels.neighborhood_attention.numba.axial import of_queries, of_readers, pull_axial
from ablate.kernels.neighborhood_attention.numba.forward import Form
from ablate.kernels.neighborhood_attention.numba.pairs import (
    Terms,
    Vectors,
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
    parts, lanes, four, sixteen = vectors
    width_of_head = len(parts) * len(lanes)
    channels, entries, offsets = heads * width_of_head, len(other), axis * axis
    height, span = len(row_first) - 1, kernel + 3
    for line in prange(of_query.size // (width * channels)):
        image, row = line // height, line % height
        weights, pulls = np.empty(room * 4, np.float32), np.empty(room * 4, np.float32)
        nothing, scratch = np.zeros(room * 4, np.float32), np.empty(4, np.float32)
        common = np.zeros(heads * kernel * span * 4, np.float32)  # of all regular blocks, pair by pair
        row_begin, row_end = row_first[row], row_first[row + 1]
        shared = first[0]
        for block in range(len(first) - 1):
            begin, end, left = first[block], first[block + 1], width - 4 * block
            apart = apart_of(left, channels)
            near, far = apart_of(left, 1), apart_of(left, heads * 2 * axis)
            for head in range(heads):
                position = (line * width + 4 * block) * channels + head * width_of_head
                place = image * height * width * channels + head * width_of_head
                at = ((image * heads + head) * height + row) * width + 4 * block
                high = four_times(of_block(rows, at, near, scratch, four))
                middle = four_times(of_block(mean, at, near, scratch, four))
                own_bias = (line * heads + head) * offsets
                own = ((line * width + 4 * block) * heads + head) * 2 * axis
                if axial is not None:
                    of_queries(
                        pair_bias, head * axis * entries * 4, axial, own, far, row_offset, row_begin, row_end,
                        offset, begin, end, axis, entries * 4, weights, four,
                    )  # fmt: skip
                n = 0
                for each in range(row_begin, row_end):
                    start = place + row_other[each] * width * channels
                    plus_these, table = pair_bias, ((head * axis + row_offset[each]) * entries + begin) * 4
                    if axial is not None:
                        plus_these, table = weights, n
                    products(
                        query, position, apart, key, start, other, begin, end, channels, plus_these, table,
                        weights, n, parts, lanes, four,
                    )  # fmt: skip
                    products(
                        grad, position, apart, value, start, other, begin, end, channels, nothing, 0,
                        pulls, n, parts, lanes, four,
                    )  # fmt: skip
                    n += 4 * (end - begin)
                for u in range(0, n, 16):
                    weight = exponential(minus(load(weights, u, sixteen), high))
                    store(pulls, u, times(weight, minus(load(pulls, u, sixteen), middle)))
                weighted(
                    pulls, key, place, channels, row_other, row_begin, row_end, width * channels,
                    other, begin, end, of_query, position, left, parts, lanes,
                )  # fmt: skip
                if axial is not None:
                    pull_axial(
                        pulls, of_axial, own, heads * 2 * axis, row_offset, row_begin, row_end, tap, offset,
                        begin, end, axis, min(left, 4), four,
                    )  # fmt: skip
                if needs_bias:
                    if regular[block]:
                        shared = begin
                        for u in range(0, n, 4):
                            v = head * kernel * span * 4 + u
                            store(common, v, plus(load(common, v, four), load(pulls, u, four)))
                    else:
                        _pull_bias(
                            pulls, of_bias, own_bias, row_offset, row_begin, row_end, axis, tap, offset,
                            begin, end, min(left, 4),
                        )  # fmt: skip
                if regular[block] and row_end - row_begin == kernel:
                    continue
                if counts and (not whole[block] or row_end - row_begin < kernel):
                    m = absent_logits(
                        weights, 0, bias[head * offsets :], absent[block * kernel * 4 :],
                        row_tap, row_begin, row_end, kernel, axial, own, far, four,
                    )  # fmt: skip
                    high_of_block = of_block(rows, at, near, scratch, four)
                    for u in range(0, m, 4):
                        store(weights, u, exponential(minus(load(weights, u, four), high_of_block)))
                        for k in range(min(left, 4)):
                            pull = weights[u + k] * mean[at + k]
                            if needs_bias:
                                of_bias[own_bias + u // 4] -= pull
                            if axial is not None:
                                terms = own + k * heads * 2 * axis
                                of_axial[terms + u // 4 // kernel] -= pull
                                of_axial[terms + axis + u // 4 % kernel] -= pull
        if needs_bias:
            for head in range(heads):
                _pull_bias(
                    common[head * kernel * span * 4 :], of_bias, (line * heads + head) * offsets, row_offset,
                    row_begin, row_end, axis, tap, offset, shared, shared + span if shared > 0 else 0, 4,
                )  # fmt: skip


@njit(fastmath=FAST)
def _pull_bias(
    pulls: Any,
    of_bias: Any,
    own: Any,
    row_offset: Any,
    row_begin: Any,
    row_end: Any,
    axis: Any,
    tap: Any,
    offset: Any,
    begin: Any,
    end: Any,
    positions: Any,
) -> None:
    """Add what each pair of a block pulls to the entry of its offset."""
    number = 0
    for row in range(row_begin, row_end):
        table = own + row_offset[row] * axis
        for entry in range(4 * begin, 4 * end, 4):
            for k in range(positions):
                if tap[entry + k] >= 0:
                    of_bias[table + offset[entry + k]] += pulls[number + k]
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
    row_first, row_other, _, row_offset = vertical
    first, other, _, offset, _ = horizontal
    heads, _, axis, room, _, width, _ = form
    parts, lanes, four, sixteen = vectors
    width_of_head = len(parts) * len(lanes)
    channels, entries = heads * width_of_head, len(other)
    height = len(row_first) - 1
    for line in prange(of_key.size // (width * channels)):
        image, row = line // height, line % height
        weights, pulls = np.empty(room * 4, np.float32), np.empty(room * 4, np.float32)
        nothing, middle = np.zeros(room * 4, np.float32), np.empty(room * 4, np.float32)
        row_begin, row_end = row_first[row], row_first[row + 1]
        for block in range(len(first) - 1):
            begin, end, left = first[block], first[block + 1], width - 4 * block
            apart = apart_of(left, channels)
            for head in range(heads):
                position = (line * width + 4 * block) * channels + head * width_of_head
                place = image * height * width * channels + head * width_of_head
                n = 0
                for each in range(row_begin, row_end):
                    start = place + row_other[each] * width * channels
                    plus_these, table = pair_bias, ((head * axis + row_offset[each]) * entries + begin) * 4
                    at = ((image * heads + head) * height + row_other[each]) * width
                    if axial is not None:
                        of_line = ((image * height + row_other[each]) * width * heads + head) * 2 * axis
                        of_readers(
                            pair_bias, table, axial, of_line, heads * 2 * axis, other, offset, begin, end,
                            row_offset[each], axis, weights, n, four,
                        )  # fmt: skip
                        plus_these, table = weights, n
                    products(
                        key, position, apart, query, start, other, begin, end, channels, plus_these, table,
                        weights, n, parts, lanes, four,
                    )  # fmt: skip
                    products(
                        value, position, apart, grad, start, other, begin, end, channels, nothing, 0,
                        pulls, n, parts, lanes, four,
                    )  # fmt: skip
                    for entry in range(begin, end):
                        high = splat(rows[at + other[entry]], four)
                        store(weights, n, minus(load(weights, n, four), high))
                        store(middle, n, splat(mean[at + other[entry]], four))
                        n += 4
                for u in range(0, n, 16):
                    weight = exponential(load(weights, u, sixteen))
                    store(weights, u, weight)
                    pull = minus(load(pulls, u, sixteen), load(middle, u, sixteen))
                    store(pulls, u, times(weight, pull))
                weighted(
                    pulls, query, place, channels, row_other, row_begin, row_end, width * channels,
                    other, begin, end, of_key, position, left, parts, lanes,
                )  # fmt: skip
                weighted(
                    weights, grad, place, channels, row_other, row_begin, row_end, width * channels,
                    other, begin, end, of_value, position, left, parts, lanes,
                )  # fmt: skip
