"""Axial terms: what queries add to their logits for row and column offsets, and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from ablate.kernels._numba.run import FAST
from ablate.kernels._numba.simd import FOUR, Place, load, plus, store, zeros
from ablate.kernels.neighborhood_attention.numba.pairs import AxialTerms, Columns, Rows, of_block


@njit(fastmath=FAST)
def of_queries(
    pair_bias: Place, axial: Any, terms: AxialTerms, rows: Rows, columns: Columns, out: Any
) -> None:
    """Write to `out` what the four queries of a block add to their products: biases and axial terms.

    `pair_bias` is the place of the head's biases.
    """
    own, _, far, axis = terms
    begin, end, of_row = columns.begin, columns.end, 4 * len(columns.other)
    scratch, across = np.empty(4, np.float32), np.empty(4 * (end - begin), np.float32)
    for entry in range(begin, end):
        places = own + axis, own + far[0] + axis, own + far[1] + axis, own + far[2] + axis
        for k in range(4):
            across[4 * (entry - begin) + k] = axial[places[k] + columns.offset[4 * entry + k]]
    number = 0
    for each in range(rows.begin, rows.end):
        row = of_block(axial, own + rows.offset[each], far, scratch)
        here = pair_bias.at + rows.offset[each] * of_row + begin * 4
        for u in range(0, 4 * (end - begin), 4):
            both = plus(row, load(across, u, FOUR))
            store(out, number, plus(load(pair_bias.array, here + u, FOUR), both))
            number += 4


@njit(fastmath=FAST)
def of_readers(
    pair_bias: Place, axial: Place, apart: Any, row: Any, axis: Any, columns: Columns, out: Place
) -> None:
    """Do the same for a block of keys: terms of the queries in one row, at offset `row`, that read them.

    `axial` is the place of that row's terms, which are `apart` from one query to the next.
    """
    scratch = np.empty(4, np.float32)
    table, number = pair_bias.at, out.at
    for entry in range(columns.begin, columns.end):
        own = axial.at + columns.other[entry] * apart
        for k in range(4):
            across = axial.array[own + axis + columns.offset[4 * entry + k]]
            scratch[k] = axial.array[own + row] + across
        store(out.array, number, plus(load(pair_bias.array, table, FOUR), load(scratch, 0, FOUR)))
        number, table = number + 4, table + 4


@njit(fastmath=FAST)
def pull_axial(
    pulls: Any, of_axial: Any, terms: AxialTerms, rows: Rows, columns: Columns, positions: Any
) -> None:
    """Add what the pairs of a block pull to the axial terms of its first `positions` queries."""
    own, apart, _, axis = terms
    begin, end = columns.begin, columns.end
    across, total = np.zeros(4 * (end - begin), np.float32), np.empty(4, np.float32)
    number = 0
    for row in range(rows.begin, rows.end):
        of_row = zeros(FOUR)
        for u in range(0, 4 * (end - begin), 4):
            pull = load(pulls, number, FOUR)
            of_row = plus(of_row, pull)
            store(across, u, plus(load(across, u, FOUR), pull))
            number += 4
        store(total, 0, of_row)
        for k in range(positions):
            of_axial[own + k * apart + rows.offset[row]] += total[k]
    for entry in range(begin, end):
        for k in range(positions):
            if columns.tap[4 * entry + k] >= 0:
                at = own + k * apart + axis + columns.offset[4 * entry + k]
                of_axial[at] += across[4 * (entry - begin) + k]
