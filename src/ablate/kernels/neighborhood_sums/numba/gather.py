"""The loop of `aggregate` and of its transpose, `aggregate_transpose`."""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import prange

from ablate.kernels._numba.run import compiled
from ablate.kernels._numba.simd import filter_at, fma, load, number, prefetch, store, zeros
from ablate.kernels._numba.taps import TapBlocks, TapList

LINE = 16  # float32 in a line of cache


class Maps(NamedTuple):
    """Flat arrays of float32."""

    read: Any
    filters: Any
    multiply: Any  # None without such a factor
    add: Any  # the same
    out: Any


class Form(NamedTuple):
    """Sizes of the sum and how it is computed."""

    columns: Any  # of the output
    size: Any  # (height, width) of the map that is read
    heads: Any
    side: Any  # K, as a number or as a tuple of that length, which the compiler knows
    static: Any  # offsets per axis; entries from the static factors of one image to the next
    chunks: Any  # vectors in a head
    transposed: Any  # filters are at the position that is read
    tile: Any  # rows at a time that go through a block of columns


@compiled
def gather(maps: Maps, vertical: TapList, horizontal: TapBlocks, form: Form, lanes: Any) -> None:
    """out[i, c] = Σ F' · read[other, c] over the taps of i; F is at i, or transposed at the other position.

    There are heads · chunks · lanes channels. Each row of a tile prefetches the filters of its next block.
    """
    read, filters, multiply, add, out = maps
    row_first, row_other, row_tap, row_offset = vertical
    first, other, tap, offset, regular = horizontal
    columns, size, heads, side, static, chunks, transposed, tile = form
    height, width = size
    kernel = number(side)
    taps, vector = kernel * kernel, len(lanes)
    channels, all_taps = heads * chunks * vector, heads * taps
    axis, apart = static
    rows = len(row_first) - 1
    pieces = (rows + tile - 1) // tile
    for piece in prange(out.size // (rows * columns * channels) * pieces):
        image, upper = piece // pieces, piece % pieces * tile
        for block in range(len(regular)):
            column = 4 * block
            for part in range(heads * chunks):
                head, channel = part // chunks, part * vector
                for row in range(upper, min(upper + tile, rows)):
                    line = image * rows + row
                    ahead = (line * columns + column + 4) * all_taps + part * kernel * 2 * LINE
                    a, b, c, d = zeros(lanes), zeros(lanes), zeros(lanes), zeros(lanes)
                    for entry in range(row_first[row], row_first[row + 1]):
                        place = (image * height + row_other[entry]) * width
                        fixed = head * taps + row_tap[entry] * kernel  # what filters of all positions share
                        table = image * apart + row_offset[entry] * axis * channels + channel
                        e, end = first[block], first[block + 1]
                        # 4 · heads · K² filters in heads · chunks · K turns: to K = 8, two lines each
                        prefetch(filters, ahead)
                        prefetch(filters, ahead + LINE)
                        ahead += 2 * LINE
                        if regular[block]:
                            # Position p meets entry e + j at tap j − p, transposed at K − 1 − (j − p).
                            p = (place + other[e]) * channels + channel
                            if transposed:
                                q, along, across = (
                                    fixed + (place + other[e]) * all_taps + kernel - 1,
                                    all_taps - 1,
                                    1,
                                )
                                s, s_along = table + offset[4 * e] * channels, -channels
                            else:
                                q, along, across = (
                                    fixed + (line * columns + column) * all_taps,
                                    1,
                                    all_taps - 1,
                                )
                                s, s_along = table + offset[4 * e] * channels, channels
                            x = load(read, p, lanes)
                            a = fma(filter_at(filters, q, multiply, add, s, lanes), x, a)
                            p, q, s = p + channels, q + along, s + s_along
                            x = load(read, p, lanes)
                            a = fma(filter_at(filters, q, multiply, add, s, lanes), x, a)
                            b = fma(filter_at(filters, q + across, multiply, add, s - s_along, lanes), x, b)
                            p, q, s = p + channels, q + along, s + s_along
                            x = load(read, p, lanes)
                            a = fma(filter_at(filters, q, multiply, add, s, lanes), x, a)
                            b = fma(filter_at(filters, q + across, multiply, add, s - s_along, lanes), x, b)
                            r, u = q + 2 * across, s - 2 * s_along
                            c = fma(filter_at(filters, r, multiply, add, u, lanes), x, c)
                            for _ in range(3, kernel):
                                p, q, s = p + channels, q + along, s + s_along
                                x = load(read, p, lanes)
                                a = fma(filter_at(filters, q, multiply, add, s, lanes), x, a)
                                r, u = q + across, s - s_along
                                b = fma(filter_at(filters, r, multiply, add, u, lanes), x, b)
                                r, u = r + across, u - s_along
                                c = fma(filter_at(filters, r, multiply, add, u, lanes), x, c)
                                r, u = r + across, u - s_along
                                d = fma(filter_at(filters, r, multiply, add, u, lanes), x, d)
                            p, q, s = p + channels, q + along + across, s
                            x = load(read, p, lanes)
                            b = fma(filter_at(filters, q, multiply, add, s, lanes), x, b)
                            r, u = q + across, s - s_along
                            c = fma(filter_at(filters, r, multiply, add, u, lanes), x, c)
                            r, u = r + across, u - s_along
                            d = fma(filter_at(filters, r, multiply, add, u, lanes), x, d)
                            p, q, s = p + channels, q + along + across, s
                            x = load(read, p, lanes)
                            c = fma(filter_at(filters, q, multiply, add, s, lanes), x, c)
                            d = fma(filter_at(filters, q + across, multiply, add, s - s_along, lanes), x, d)
                            p, q = p + channels, q + along + across
                            d = fma(filter_at(filters, q, multiply, add, s, lanes), load(read, p, lanes), d)
                            continue
                        while e < end:
                            at = place + other[e]
                            x = load(read, at * channels + channel, lanes)
                            if transposed:
                                q, across = fixed + at * all_taps, 0
                            else:
                                q, across = fixed + (line * columns + column) * all_taps, all_taps
                            t = tap[4 * e]
                            if t >= 0:
                                s = table + offset[4 * e] * channels
                                a = fma(filter_at(filters, q + t, multiply, add, s, lanes), x, a)
                            t = tap[4 * e + 1]
                            if t >= 0:
                                s = table + offset[4 * e + 1] * channels
                                b = fma(filter_at(filters, q + across + t, multiply, add, s, lanes), x, b)
                            t = tap[4 * e + 2]
                            if t >= 0:
                                s = table + offset[4 * e + 2] * channels
                                c = fma(filter_at(filters, q + 2 * across + t, multiply, add, s, lanes), x, c)
                            t = tap[4 * e + 3]
                            if t >= 0:
                                s = table + offset[4 * e + 3] * channels
                                d = fma(filter_at(filters, q + 3 * across + t, multiply, add, s, lanes), x, d)
                            e += 1
                    target, left = (line * columns + column) * channels + channel, columns - column
                    store(out, target, a)
                    if left > 1:
                        store(out, target + channels, b)
                    if left > 2:
                        store(out, target + 2 * channels, c)
                    if left > 3:
                        store(out, target + 3 * channels, d)
