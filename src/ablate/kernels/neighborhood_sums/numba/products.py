"""The loop of `scores`."""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import prange

from ablate.kernels._numba.run import compiled
from ablate.kernels._numba.simd import fma, lane, load, load_filtered, totals, value_at, zeros
from ablate.kernels._numba.taps import TapBlocks, TapList

LANE_1, LANE_2, LANE_3 = (0,), (0,) * 2, (0,) * 3


class Maps(NamedTuple):
    """Flat arrays of float32."""

    query: Any
    key: Any
    out: Any
    multiply: Any  # None without such a factor
    add: Any  # the same


class Form(NamedTuple):
    """Sizes of the scores."""

    columns: Any  # of the output
    size: Any  # (height, width) of the keys
    heads: Any
    kernel: Any
    static: Any  # offsets per axis; entries from the static factors of one image to the next
    chunks: Any  # vectors in a head


@compiled
def products(maps: Maps, bias: Any, vertical: TapList, horizontal: TapBlocks, form: Form, lanes: Any) -> None:
    """out[i, g, t] = Σ_c (m · query[i, c] + a) · key[n(i, t), c] + b; b for taps outside of the map."""
    query, key, out, multiply, add = maps
    row_first, row_other, row_tap, row_offset = vertical
    first, other, tap, offset, _ = horizontal
    columns, size, heads, kernel, static, chunks = form
    height, width = size
    taps, vector = kernel * kernel, len(lanes)
    width_of_head = chunks * vector
    channels, all_taps = heads * width_of_head, heads * taps
    axis, apart = static
    rows = len(row_first) - 1
    for line in prange(out.size // (columns * all_taps)):
        image, row = line // rows, line % rows
        if bias is None:
            for part in range(line * columns * all_taps, (line + 1) * columns * all_taps):
                out[part] = 0
        else:  # taps are offsets under the borders where one may be outside of the map
            for position in range(line * columns, (line + 1) * columns):
                for part in range(all_taps):
                    out[position * all_taps + part] = bias[part]
        for head in range(heads):
            for block in range(len(first) - 1):
                column = 4 * block
                left = columns - column
                p = (line * columns + column) * channels + head * width_of_head
                p1 = p + channels if left > 1 else p  # a position beyond the line is computed as the first
                p2 = p + 2 * channels if left > 2 else p
                p3 = p + 3 * channels if left > 3 else p
                target = ((line * columns + column) * heads + head) * taps
                for entry in range(row_first[row], row_first[row + 1]):
                    place = (image * height + row_other[entry]) * width
                    down = row_tap[entry] * kernel
                    table = image * apart + row_offset[entry] * axis * channels + head * width_of_head
                    table_of_bias = (head * axis + row_offset[entry]) * axis
                    for e in range(first[block], first[block + 1]):
                        q = (place + other[e]) * channels + head * width_of_head
                        s, s1 = table + offset[4 * e] * channels, table + offset[4 * e + 1] * channels
                        s2, s3 = table + offset[4 * e + 2] * channels, table + offset[4 * e + 3] * channels
                        a, b, c, d = zeros(lanes), zeros(lanes), zeros(lanes), zeros(lanes)
                        for chunk in range(chunks):
                            ahead = chunk * vector
                            x = load(key, q + ahead, lanes)
                            a = fma(load_filtered(query, p + ahead, multiply, add, s + ahead, lanes), x, a)
                            b = fma(load_filtered(query, p1 + ahead, multiply, add, s1 + ahead, lanes), x, b)
                            c = fma(load_filtered(query, p2 + ahead, multiply, add, s2 + ahead, lanes), x, c)
                            d = fma(load_filtered(query, p3 + ahead, multiply, add, s3 + ahead, lanes), x, d)
                        sums = totals(a, b, c, d)
                        t = tap[4 * e]
                        if t >= 0:
                            known = value_at(bias, table_of_bias + offset[4 * e])
                            out[target + down + t] = lane(sums, ()) + known
                        t = tap[4 * e + 1]
                        if t >= 0:
                            known = value_at(bias, table_of_bias + offset[4 * e + 1])
                            out[target + all_taps + down + t] = lane(sums, LANE_1) + known
                        t = tap[4 * e + 2]
                        if t >= 0:
                            known = value_at(bias, table_of_bias + offset[4 * e + 2])
                            out[target + 2 * all_taps + down + t] = lane(sums, LANE_2) + known
                        t = tap[4 * e + 3]
                        if t >= 0:
                            known = value_at(bias, table_of_bias + offset[4 * e + 3])
                            out[target + 3 * all_taps + down + t] = lane(sums, LANE_3) + known
