"""The sums on a CPU: loops compiled by Numba, float32 throughout.

Sums stay in registers, those of four neighbouring positions at a time, so that a value is loaded once
for all taps that meet it, and a filter takes its static factors on the way: no copy of the map and no
filter per channel is ever made, memory is that of inputs and outputs. Half precision is computed in
float32, float64 by the reference. Numba keeps the compiled loops beside this file or in the user's
cache; one is compiled for each width of a vector, with and without static factors.

Operations and bytes, stage 1 of Swin-T, batch 8 (56×56, 96 channels, 3 heads, K = 7): 118 M
multiply-accumulates for each sum and as many more for static factors, three operations for each in
`correlate`; 15 MB of filters, 10 MB each of values and output. With vectors of 8 lanes bound by arithmetic,
with those of 16 `aggregate` without static factors by traffic. Its inner loop is 16 multiply-additions in
31 instructions. In turns with a matrix product of 1024 on two AVX-512 cores it takes 2.3 times what its
operations would at that rate, 1.2 times what a copy of its bytes does (3.0 and 1.7 before rows shared
values and filters were asked for ahead), with static factors 2.2 (2.9). On two AVX2 cores, before either:
60 of 164 GFLOP/s; 8 lanes 36, 32 lanes (which spill) 51, the row unrolled whole (LLVM reorders it and
spills) 52, heads before blocks of columns 40. Tap by tap instead of value by value is a fifth slower.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor

from ablate.ops.kernels.geometry import offsets_per_axis, strided
from ablate.ops.kernels.loops.run import compiled, flat, run
from ablate.ops.kernels.loops.simd import (
    filter_at,
    fma,
    lane,
    lanes_for,
    load,
    load_filtered,
    number,
    plus,
    prefetch,
    splat,
    store,
    times,
    totals,
    value_at,
    zeros,
)
from ablate.ops.kernels.loops.walks import blocks, runs, walk

WIDE = 16  # lanes from which loops are compiled for one kernel: a fifth faster, and compiled more often
TILE = 4  # rows that share the values they load, where there are enough pieces for all threads
LINE = 16  # float32 in a line of cache
PIECES = 32  # of a sum over the batch, at least, to share among threads
LANE_1, LANE_2, LANE_3 = (0,), (0,) * 2, (0,) * 3


def aggregate(
    values: Tensor,
    filters: Tensor,
    multiply: Tensor | None,
    add: Tensor | None,
    kernel: int,
    dilation: int,
    border: str,
    stride: int,
) -> Tensor:
    """(B, H, W, C), (B, H', W', G, K²), (B or 1, C, offsets) → (B, H', W', C); see `reference`."""
    size, neighborhood = values.shape[1:3], (kernel, dilation, border, stride)
    out = torch.empty(*filters.shape[:3], values.shape[-1])
    _sums(values, filters, multiply, add, out, size, neighborhood, transposed=False)
    return out.to(values.dtype)


def spread(
    outputs: Tensor,
    filters: Tensor,
    multiply: Tensor | None,
    add: Tensor | None,
    height: int,
    width: int,
    kernel: int,
    dilation: int,
    border: str,
    stride: int,
) -> Tensor:
    """(B, H', W', C), (B, H', W', G, K²), (B or 1, C, offsets) → (B, H, W, C); see `reference`."""
    size, neighborhood = (height, width), (kernel, dilation, border, stride)
    out = torch.empty(len(outputs), *size, outputs.shape[-1])
    _sums(outputs, filters, multiply, add, out, size, neighborhood, transposed=True)
    return out.to(outputs.dtype)


def scores(
    query: Tensor,
    key: Tensor,
    multiply: Tensor | None,
    add: Tensor | None,
    bias: Tensor | None,
    heads: int,
    kernel: int,
    dilation: int,
    border: str,
    stride: int,
) -> Tensor:
    """(B, H', W', C), (B, H, W, C), (B or 1, C, offsets), (G, offsets) → (B, H', W', G, K²)."""
    batch, height, width, channels = key.shape
    out = torch.empty(batch, strided(height, stride), strided(width, stride), heads, kernel**2)
    neighborhood = (kernel, dilation, border, stride)
    lanes = lanes_for(channels // heads)
    multiply, add = _alike(multiply, add)
    run(
        _scores,
        *map(flat, (query, key, out)),
        _by_offset(multiply),
        _by_offset(add),
        None if bias is None else flat(bias),
        *walk(height, *neighborhood, False),
        *blocks(width, *neighborhood, False)[:4],
        out.shape[2],
        (height, width),
        heads,
        kernel,
        (offsets_per_axis(kernel, border), max(_per_image(multiply), _per_image(add))),
        channels // heads // len(lanes),
        lanes,
    )
    return out.to(query.dtype)


def correlate(
    outputs: Tensor,
    values: Tensor,
    filters: Tensor,
    kernel: int,
    dilation: int,
    border: str,
    stride: int,
    shared: bool = False,
) -> tuple[Tensor, Tensor]:
    """(B, H', W', C), (B, H, W, C), (B, H', W', G, K²) → (B or 1, C, offsets) twice; see `reference`."""
    batch, height, width, channels = values.shape
    heads, neighborhood = filters.shape[3], (kernel, dilation, border, stride)
    lanes = lanes_for(channels // heads)
    offsets = offsets_per_axis(kernel, border)
    parts = channels // len(lanes)
    groups = min(batch, -(-PIECES // parts)) if shared else batch
    found = [torch.empty(groups, offsets**2, channels) for _ in range(2)]
    run(
        _correlate,
        *map(flat, (outputs, values, filters, *found)),
        *walk(height, *neighborhood, False),
        *runs(width, *neighborhood),
        tuple(outputs.shape[1:3]),
        (height, width),
        heads,
        kernel,
        offsets,
        channels // heads // len(lanes),
        lanes,
    )
    if shared and groups != 1:  # an empty batch gives zeros
        found = [x.sum(0, keepdim=True) for x in found]
    of_multiply, of_add = (x.transpose(1, 2).to(outputs.dtype).contiguous() for x in found)
    return of_multiply, of_add


def _sums(
    read: Tensor,
    filters: Tensor,
    multiply: Tensor | None,
    add: Tensor | None,
    out: Tensor,
    size: tuple[int, ...],
    neighborhood: tuple[int, int, str, int],
    *,
    transposed: bool,
) -> None:
    heads, width = filters.shape[3], out.shape[-1] // filters.shape[3]
    lanes, kernel = lanes_for(width), neighborhood[0]
    multiply, add = _alike(multiply, add)
    run(
        _sum,
        *map(flat, (read, filters)),
        _by_offset(multiply),
        _by_offset(add),
        flat(out),
        *walk(size[0], *neighborhood, transposed),
        *blocks(size[1], *neighborhood, transposed),
        out.shape[2],
        tuple(read.shape[1:3]),
        heads,
        (0,) * kernel if len(lanes) >= WIDE else kernel,
        (offsets_per_axis(kernel, neighborhood[2]), max(_per_image(multiply), _per_image(add))),
        width // len(lanes),
        transposed,
        TILE if out.shape[:2].numel() >= 4 * TILE * torch.get_num_threads() else 1,
        lanes,
    )


def _alike(multiply: Tensor | None, add: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Static factors of as many images."""
    if multiply is None or add is None:
        return multiply, add
    images = max(len(multiply), len(add))
    return multiply.expand(images, -1, -1), add.expand(images, -1, -1)


def _by_offset(static: Tensor | None) -> np.ndarray | None:
    """(B or 1, C, offsets) → flat, channels last, so that a vector holds neighbouring channels."""
    return None if static is None else flat(static.transpose(1, 2))


def _per_image(static: Tensor | None) -> int:
    """Entries from one image's static factor to the next one's."""
    return 0 if static is None or len(static) == 1 else static[0].numel()


@compiled
def _sum(
    read: Any,
    filters: Any,
    multiply: Any,
    add: Any,
    out: Any,
    row_first: Any,
    row_other: Any,
    row_tap: Any,
    row_offset: Any,
    first: Any,
    other: Any,
    tap: Any,
    offset: Any,
    regular: Any,
    columns: Any,
    size: Any,
    heads: Any,
    side: Any,
    static: Any,
    chunks: Any,
    transposed: Any,
    tile: Any,
    lanes: Any,
) -> None:
    """out[i, c] = Σ F' · read[other, c] over i's walks; F stands at i, or transposed at the other.

    `size` is that of the map that is read; channels are heads · chunks · lanes. `static` has the offsets
    per axis, and how far the static factors of one image lie from the next one's. `tile` rows at a time go
    through a block of columns, and each asks for the filters of its next block.
    """
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


@compiled
def _scores(
    query: Any,
    key: Any,
    out: Any,
    multiply: Any,
    add: Any,
    bias: Any,
    row_first: Any,
    row_other: Any,
    row_tap: Any,
    row_offset: Any,
    first: Any,
    other: Any,
    tap: Any,
    offset: Any,
    columns: Any,
    size: Any,
    heads: Any,
    kernel: Any,
    static: Any,
    chunks: Any,
    lanes: Any,
) -> None:
    """out[i, g, t] = Σ_c (m · query[i, c] + a) · key[n(i, t), c] + b; b for taps that are in no walk."""
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
        else:  # taps are offsets under the borders where one may be in no walk
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


@compiled
def _correlate(
    outputs: Any,
    values: Any,
    filters: Any,
    of_multiply: Any,
    of_add: Any,
    row_first: Any,
    row_other: Any,
    row_tap: Any,
    row_offset: Any,
    run_tap: Any,
    run_offset: Any,
    run_begin: Any,
    run_length: Any,
    run_other: Any,
    run_step: Any,
    written: Any,
    size: Any,
    heads: Any,
    kernel: Any,
    axis: Any,
    chunks: Any,
    lanes: Any,
) -> None:
    """One vector of channels of a group of images at a time; its two tables stay in the nearest cache."""
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
