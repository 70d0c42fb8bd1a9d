"""The loops over samples, forward and backward."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit, prange

from ablate.kernels._numba.run import compiled
from ablate.kernels._numba.simd import fma, lane, load, splat, store, totals, zeros

LANE_1, LANE_2, LANE_3 = (0,), (0,) * 2, (0,) * 3
FARTHEST = np.float32(2**20)  # positions: a sample beyond is outside of every map
NAN = np.float32("nan")


class Maps(NamedTuple):
    """Flat arrays of float32: the operands, or their gradients."""

    values: Any
    weights: Any
    displacements: Any


class Form(NamedTuple):
    """Sizes of the sums."""

    written: Any  # (rows, columns) of the output
    size: Any  # (height, width) of the values
    heads: Any
    shared: Any  # heads that have one displacement
    taps: Any
    stride: Any
    chunks: Any  # vectors in a head


@njit(inline="always")
def split(displacement: Any) -> Any:
    """Whole positions below a displacement, and the rest; NaN stays a rest of NaN."""
    if not abs(displacement) < FARTHEST:
        if displacement != displacement:
            return 0, NAN
        return -(2**30) if displacement < 0 else 2**30, np.float32(0)
    whole = int(displacement)
    if whole > displacement:
        whole -= 1
    return whole, displacement - np.float32(whole)


@compiled
def samples(maps: Maps, out: Any, form: Form, lanes: Any) -> None:
    """The places and shares of a position's samples are listed once for all vectors of its head."""
    values, weights, displacements = maps
    written, size, heads, shared, taps, stride, chunks = form
    rows, columns = written
    height, width = size
    vector = len(lanes)
    width_of_head = chunks * vector
    channels = heads * width_of_head
    for line in prange(out.size // (columns * channels)):
        image, row = line // rows, line % rows
        place, share = np.empty(4 * taps, np.int64), np.empty(4 * taps, np.float32)
        for column in range(columns):
            for head in range(heads):
                position = (line * columns + column) * heads + head
                count = 0
                for tap in range(taps):
                    entry, moved = position * taps + tap, position // shared * taps + tap
                    whole, down = split(displacements[2 * moved])
                    y = row * stride + whole
                    whole, right = split(displacements[2 * moved + 1])
                    x = column * stride + whole
                    if down != down or right != right:  # NaN is not lost beyond the border
                        y, x = row * stride, column * stride
                    weight = weights[entry]
                    up, left = np.float32(1) - down, np.float32(1) - right
                    if 0 <= y < height:
                        start = (image * height + y) * width
                        if 0 <= x < width:
                            place[count], share[count] = (start + x) * channels, weight * up * left
                            count += 1
                        if -1 <= x < width - 1:
                            place[count], share[count] = (start + x + 1) * channels, weight * up * right
                            count += 1
                    if -1 <= y < height - 1:
                        start = (image * height + y + 1) * width
                        if 0 <= x < width:
                            place[count], share[count] = (start + x) * channels, weight * down * left
                            count += 1
                        if -1 <= x < width - 1:
                            place[count], share[count] = (start + x + 1) * channels, weight * down * right
                            count += 1
                for chunk in range(chunks):
                    channel = head * width_of_head + chunk * vector
                    a = zeros(lanes)
                    for n in range(count):
                        a = fma(splat(share[n], lanes), load(values, place[n] + channel, lanes), a)
                    store(out, (line * columns + column) * channels + channel, a)


@compiled
def samples_backward(grad: Any, maps: Maps, gradients: Maps, form: Form, lanes: Any) -> None:
    """One group of heads of one image at a time; it alone writes to its part of the gradients."""
    values, weights, displacements = maps
    of_values, of_weights, of_displacements = gradients
    written, size, heads, shared, taps, stride, chunks = form
    rows, columns = written
    height, width = size
    vector = len(lanes)
    width_of_head = chunks * vector
    channels = heads * width_of_head
    one = np.float32(1)
    groups = heads // shared
    for piece in prange(values.size // (height * width * shared * width_of_head)):
        image, group = piece // groups, piece % groups
        # its positions, their heads in turn: the heads of a group add to one displacement
        for place in range(rows * columns * shared):
            row, column = place // shared // columns, place // shared % columns
            head = group * shared + place % shared
            position = (image * rows + row) * columns + column
            first = image * height * width * channels + head * width_of_head
            source = position * channels + head * width_of_head
            for tap in range(taps):
                entry = (position * heads + head) * taps + tap
                moved = (position * groups + group) * taps + tap
                whole, down = split(displacements[2 * moved])
                y = row * stride + whole
                whole, right = split(displacements[2 * moved + 1])
                x = column * stride + whole
                if down != down or right != right:
                    y, x = row * stride, column * stride
                if y < -1 or y >= height or x < -1 or x >= width:
                    continue
                # 1 where a corner is on the map, else 0; an absent corner is read at another position
                top, bottom = np.float32(y >= 0), np.float32(y < height - 1)
                west, east = np.float32(x >= 0), np.float32(x < width - 1)
                y0, y1, x0, x1 = max(y, 0), min(y + 1, height - 1), max(x, 0), min(x + 1, width - 1)
                p00, p01 = first + (y0 * width + x0) * channels, first + (y0 * width + x1) * channels
                p10, p11 = first + (y1 * width + x0) * channels, first + (y1 * width + x1) * channels
                up, left = one - down, one - right
                weight = weights[entry]
                s00, s01 = up * left * top * west, up * right * top * east
                s10, s11 = down * left * bottom * west, down * right * bottom * east
                f00, f01 = splat(weight * s00, lanes), splat(weight * s01, lanes)
                f10, f11 = splat(weight * s10, lanes), splat(weight * s11, lanes)
                a, b, c, d = zeros(lanes), zeros(lanes), zeros(lanes), zeros(lanes)
                for chunk in range(chunks):
                    ahead = chunk * vector
                    g = load(grad, source + ahead, lanes)
                    a = fma(g, load(values, p00 + ahead, lanes), a)
                    b = fma(g, load(values, p01 + ahead, lanes), b)
                    c = fma(g, load(values, p10 + ahead, lanes), c)
                    d = fma(g, load(values, p11 + ahead, lanes), d)
                    store(of_values, p00 + ahead, fma(f00, g, load(of_values, p00 + ahead, lanes)))
                    store(of_values, p01 + ahead, fma(f01, g, load(of_values, p01 + ahead, lanes)))
                    store(of_values, p10 + ahead, fma(f10, g, load(of_values, p10 + ahead, lanes)))
                    store(of_values, p11 + ahead, fma(f11, g, load(of_values, p11 + ahead, lanes)))
                sums = totals(a, b, c, d)
                d00, d01 = lane(sums, ()), lane(sums, LANE_1)
                d10, d11 = lane(sums, LANE_2), lane(sums, LANE_3)
                of_weights[entry] = d00 * s00 + d01 * s01 + d10 * s10 + d11 * s11
                d00, d01 = d00 * top * west, d01 * top * east
                d10, d11 = d10 * bottom * west, d11 * bottom * east
                of_displacements[2 * moved] += weight * (left * (d10 - d00) + right * (d11 - d01))
                of_displacements[2 * moved + 1] += weight * (up * (d01 - d00) + down * (d11 - d10))
