"""Axial terms: what queries add to their logits for row and column offsets, and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from ablate.kernels._numba.run import FAST
from ablate.kernels._numba.simd import load, plus, store, zeros
from ablate.kernels.neighborhood_attention.numba.pairs import of_block


@njit(fastmath=FAST)
def of_queries(
    pair_bias: Any,
    table: Any,
    axial: Any,
    own: Any,
    far: Any,
    row_offset: Any,
    row_begin: Any,
    row_end: Any,
    offset: Any,
    begin: Any,
    end: Any,
    axis: Any,
    of_row: Any,
    out: Any,
    four: Any,
) -> None:
    """Write to `out` what the four queries of a block add to their products: biases and axial terms.

    `own` is the place of the first query's terms, `far` has how far those of the others are from it;
    the biases of the head begin at `table`, a row offset's take `of_row`.
    """
    scratch, columns = np.empty(4, np.float32), np.empty(4 * (end - begin), np.float32)
    for entry in range(begin, end):
        places = own + axis, own + far[0] + axis, own + far[1] + axis, own + far[2] + axis
        for k in range(4):
            columns[4 * (entry - begin) + k] = axial[places[k] + offset[4 * entry + k]]
    number = 0
    for each in range(row_begin, row_end):
        row = of_block(axial, own + row_offset[each], far, scratch, four)
        here = table + row_offset[each] * of_row + begin * 4
        for u in range(0, 4 * (end - begin), 4):
            both = plus(row, load(columns, u, four))
            store(out, number, plus(load(pair_bias, here + u, four), both))
            number += 4


@njit(fastmath=FAST)
def of_readers(
    pair_bias: Any,
    table: Any,
    axial: Any,
    line: Any,
    apart: Any,
    other: Any,
    offset: Any,
    begin: Any,
    end: Any,
    row: Any,
    axis: Any,
    out: Any,
    number: Any,
    four: Any,
) -> None:
    """Do the same for a block of keys: terms of the queries in one row, at offset `row`, that read them."""
    scratch = np.empty(4, np.float32)
    for entry in range(begin, end):
        own = line + other[entry] * apart
        for k in range(4):
            scratch[k] = axial[own + row] + axial[own + axis + offset[4 * entry + k]]
        store(out, number, plus(load(pair_bias, table, four), load(scratch, 0, four)))
        number, table = number + 4, table + 4


@njit(fastmath=FAST)
def pull_axial(
    pulls: Any,
    of_axial: Any,
    own: Any,
    apart: Any,
    row_offset: Any,
    row_begin: Any,
    row_end: Any,
    tap: Any,
    offset: Any,
    begin: Any,
    end: Any,
    axis: Any,
    positions: Any,
    four: Any,
) -> None:
    """Add what the pairs of a block pull to the axial terms of their queries."""
    columns, total = np.zeros(4 * (end - begin), np.float32), np.empty(4, np.float32)
    number = 0
    for row in range(row_begin, row_end):
        of_row = zeros(four)
        for u in range(0, 4 * (end - begin), 4):
            pull = load(pulls, number, four)
            of_row = plus(of_row, pull)
            store(columns, u, plus(load(columns, u, four), pull))
            number += 4
        store(total, 0, of_row)
        for k in range(positions):
            of_axial[own + k * apart + row_offset[row]] += total[k]
    for entry in range(begin, end):
        for k in range(positions):
            if tap[4 * entry + k] >= 0:
                at = own + k * apart + axis + offset[4 * entry + k]
                of_axial[at] += columns[4 * (entry - begin) + k]
