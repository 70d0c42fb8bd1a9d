"""The three sums on a CPU: loops compiled by Numba, float32 throughout.

Each position's sum stays in registers, and in the interior of the map four neighbouring positions
are summed together, so that a value is loaded once for all taps that meet it. No copy of the map is
made: memory is that of inputs and output. Half precision is computed in float32, float64 by the
reference. Numba keeps the compiled loops beside this file or in the user's cache; one is compiled
for each width of a vector.

Operations and bytes, stage 1 of Swin-T, batch 8 (56×56, 96 channels, 3 heads, K = 7): 118 M
multiply-accumulates, 15 MB of filters, 10 MB each of values and output. Bound by arithmetic.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from ablate.ops.kernels.geometry import strided
from ablate.ops.kernels.simd import fma, lanes_for, load, splat, store, total, zeros
from ablate.ops.kernels.walks import walk

FAST = {"reassoc", "contract", "nsz"}  # sums in any order; NaN and infinity are kept
_lock = threading.Lock()  # Numba's thread pool serves one caller at a time


def aggregate(
    values: Tensor, filters: Tensor, kernel: int, dilation: int, border: str, stride: int
) -> Tensor:
    """(B, H, W, C), (B, H', W', G, K²) → (B, H', W', C); see `reference`."""
    _, height, width, channels = values.shape
    out = torch.empty(*filters.shape[:3], channels)
    _sums(values, filters, out, (height, width), (kernel, dilation, border, stride), transposed=False)
    return out.to(values.dtype)


def spread(
    outputs: Tensor,
    filters: Tensor,
    height: int,
    width: int,
    kernel: int,
    dilation: int,
    border: str,
    stride: int,
) -> Tensor:
    """(B, H', W', C), (B, H', W', G, K²) → (B, H, W, C); see `reference`."""
    out = torch.empty(len(outputs), height, width, outputs.shape[-1])
    _sums(outputs, filters, out, (height, width), (kernel, dilation, border, stride), transposed=True)
    return out.to(outputs.dtype)


def scores(
    query: Tensor, key: Tensor, heads: int, kernel: int, dilation: int, border: str, stride: int
) -> Tensor:
    """(B, H', W', C), (B, H, W, C) → (B, H', W', G, K²); see `reference`."""
    batch, height, width, channels = key.shape
    out = torch.empty(batch, strided(height, stride), strided(width, stride), heads, kernel**2)
    rows = walk(height, kernel, dilation, border, stride, False)
    columns = walk(width, kernel, dilation, border, stride, False)
    lanes = lanes_for(channels // heads)
    _run(
        _scores,
        *map(_flat, (query, key, out)),
        *rows[:3],
        *columns[:3],
        (height, width),
        heads,
        kernel,
        channels // heads // len(lanes),
        lanes,
    )
    return out.to(query.dtype)


def _sums(
    read: Tensor,
    filters: Tensor,
    out: Tensor,
    size: tuple[int, int],
    neighborhood: tuple[int, int, str, int],
    *,
    transposed: bool,
) -> None:
    rows, columns = (walk(length, *neighborhood, transposed) for length in size)
    heads, width = filters.shape[3], out.shape[-1] // filters.shape[3]
    lanes = lanes_for(width)
    _run(
        _sum,
        *map(_flat, (read, filters, out)),
        *rows[:3],
        *columns[:3],
        *columns[4:],
        tuple(read.shape[1:3]),
        heads,
        neighborhood[0],
        width // len(lanes),
        transposed,
        lanes,
    )


def _flat(x: Tensor) -> np.ndarray:
    return x.detach().to(torch.float32).contiguous().view(-1).numpy()


def _run(loop: Any, *arguments: Any) -> None:
    """On as many threads as PyTorch uses; says how long compilation took, the one time that it is needed."""
    with _lock:
        numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
        compiled, start = sum(loop.stats.cache_misses.values()), time.perf_counter()
        loop(*arguments)
        if sum(loop.stats.cache_misses.values()) > compiled:
            seconds, name = time.perf_counter() - start, loop.py_func.__name__.strip("_")
            print(f"compiled the CPU kernel {name!r} in {seconds:.1f} s, kept for later", file=sys.stderr)


def _compiled(loop: Callable[..., None]) -> Any:
    """Numba's dispatcher, with its cache on disk where one can be written."""
    options = {"parallel": True, "fastmath": FAST, "boundscheck": False}
    try:
        return njit(cache=True, **options)(loop)
    except RuntimeError:  # neither the installation nor a home folder can be written
        return njit(**options)(loop)


@_compiled
def _sum(
    read: Any,
    filters: Any,
    out: Any,
    row_first: Any,
    row_other: Any,
    row_tap: Any,
    first: Any,
    other: Any,
    tap: Any,
    regular: Any,
    shift: Any,
    step: Any,
    size: Any,
    heads: Any,
    kernel: Any,
    chunks: Any,
    transposed: Any,
    lanes: Any,
) -> None:
    """out[i, c] = Σ F · read[other, c] over i's walks; F stands at i, or transposed at the other.

    `size` is that of the map that is read; channels are heads · chunks · lanes.
    """
    height, width = size
    taps, vector = kernel * kernel, len(lanes)
    channels = heads * chunks * vector
    rows, columns = len(row_first) - 1, len(first) - 1
    all_taps = heads * taps
    for line in prange(out.size // (columns * channels)):
        image, row = line // rows, line % rows
        column = 0
        while column < columns:
            begin = first[column]
            target = (line * columns + column) * channels
            if regular[column]:
                across = shift[column] * channels  # to the next position's values
                along = step[column] * channels  # to the next tap's values
                next_filter, next_tap = all_taps, 1
                if transposed:
                    next_filter, next_tap = shift[column] * all_taps, step[column] * all_taps + 1
                for part in range(heads * chunks):
                    head, channel = part // chunks, part * vector
                    a, b, c, d = zeros(lanes), zeros(lanes), zeros(lanes), zeros(lanes)
                    for entry in range(row_first[row], row_first[row + 1]):
                        place = (image * height + row_other[entry]) * width + other[begin]
                        p = place * channels + channel
                        q = head * taps + row_tap[entry] * kernel
                        q += (place if transposed else line * columns + column) * all_taps
                        u, v = load(read, p, lanes), load(read, p + across, lanes)
                        w, x = load(read, p + 2 * across, lanes), load(read, p + 3 * across, lanes)
                        for k in range(kernel):
                            a = fma(splat(filters[q], lanes), u, a)
                            b = fma(splat(filters[q + next_filter], lanes), v, b)
                            c = fma(splat(filters[q + 2 * next_filter], lanes), w, c)
                            d = fma(splat(filters[q + 3 * next_filter], lanes), x, d)
                            if k == kernel - 1:
                                break  # there is nothing to load behind the last tap
                            p += along
                            q += next_tap
                            if along == across:  # a position's next value is its neighbour's present one
                                u, v, w, x = v, w, x, load(read, p + 3 * across, lanes)
                            elif along == -across:
                                u, v, w, x = load(read, p, lanes), u, v, w
                            else:
                                u, v = load(read, p, lanes), load(read, p + across, lanes)
                                w, x = load(read, p + 2 * across, lanes), load(read, p + 3 * across, lanes)
                    store(out, target + channel, a)
                    store(out, target + channels + channel, b)
                    store(out, target + 2 * channels + channel, c)
                    store(out, target + 3 * channels + channel, d)
                column += 4
                continue
            for part in range(heads * chunks):
                head, channel = part // chunks, part * vector
                a = zeros(lanes)
                for entry in range(row_first[row], row_first[row + 1]):
                    for each in range(begin, first[column + 1]):
                        place = (image * height + row_other[entry]) * width + other[each]
                        q = head * taps + row_tap[entry] * kernel + tap[each]
                        q += (place if transposed else line * columns + column) * all_taps
                        a = fma(splat(filters[q], lanes), load(read, place * channels + channel, lanes), a)
                store(out, target + channel, a)
            column += 1


@_compiled
def _scores(
    query: Any,
    key: Any,
    out: Any,
    row_first: Any,
    row_other: Any,
    row_tap: Any,
    first: Any,
    other: Any,
    tap: Any,
    size: Any,
    heads: Any,
    kernel: Any,
    chunks: Any,
    lanes: Any,
) -> None:
    """out[i, g, t] = Σ_c query[i, c] · key[n(i, t), c]; 0 for taps that are in no walk."""
    height, width = size
    taps, vector = kernel * kernel, len(lanes)
    channels = heads * chunks * vector
    rows, columns = len(row_first) - 1, len(first) - 1
    for line in prange(out.size // (columns * heads * taps)):
        image, row = line // rows, line % rows
        met_rows = row_first[row + 1] - row_first[row]
        for column in range(columns):
            for head in range(heads):
                target = ((line * columns + column) * heads + head) * taps
                if met_rows * (first[column + 1] - first[column]) < taps:
                    for t in range(taps):
                        out[target + t] = 0
                p = (line * columns + column) * channels + head * chunks * vector
                own = load(query, p, lanes)
                for entry in range(row_first[row], row_first[row + 1]):
                    place = (image * height + row_other[entry]) * width
                    for each in range(first[column], first[column + 1]):
                        q = (place + other[each]) * channels + head * chunks * vector
                        sums = fma(own, load(key, q, lanes), zeros(lanes))
                        for chunk in range(1, chunks):
                            ahead = chunk * vector
                            sums = fma(load(query, p + ahead, lanes), load(key, q + ahead, lanes), sums)
                        out[target + row_tap[entry] * kernel + tap[each]] = total(sums)
