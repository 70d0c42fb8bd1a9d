"""Neighbourhood attention on a CPU: loops compiled by Numba, float32, without the K² weights in memory.

Four neighbouring positions are computed together in the interior of the map: their dot products are
summed over lanes four at a time, exponentials are taken of sixteen logits at a time, and values are
loaded once for all taps that meet them. The backward pass runs twice over the pairs, once from the
queries and once from the keys, and computes weights and their gradients again in both: sums are
gathered, nothing is added to by two threads, and the same input gives the same bits.

Operations, stage 1 of Swin-T, batch 8 (56×56, 96 channels, 3 heads, K = 7): 236 M
multiply-accumulates forward, 826 M backward, 3.7 M exponentials in each of the three passes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor

from ablate.ops.kernels.cpu import _compiled, _flat, _run
from ablate.ops.kernels.geometry import offsets_per_axis
from ablate.ops.kernels.simd import (
    exponential,
    fma,
    folded_maximum,
    folded_sum,
    four_times,
    lanes_for,
    larger,
    load,
    minus,
    plus,
    splat,
    store,
    times,
    total,
    totals,
    zeros,
)
from ablate.ops.kernels.walks import walk

NEVER = np.float32(-1e30)  # the logit of a tap that does not count
FOUR, SIXTEEN = (0,) * 4, (0,) * 16


def attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, kernel: int, dilation: int, border: str
) -> tuple[Tensor, Tensor]:
    """Output (B, H, W, C), and the rows' logarithms (B, heads, H, W); see `reference`."""
    batch, height, width, channels = query.shape
    heads = len(bias)
    out, rows = torch.empty(query.shape), torch.empty(batch, heads, height, width)
    down, across = (walk(length, kernel, dilation, border, 1, False) for length in (height, width))
    lanes = lanes_for(channels // heads)
    _run(
        _forward,
        *map(_flat, (query, key, value, bias, out, rows)),
        *down[:4],
        *across,
        *_form(kernel, border, heads, channels, lanes),
        lanes,
        FOUR,
        SIXTEEN,
    )
    return out.to(query.dtype), rows


def backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    out: Tensor,
    rows: Tensor,
    kernel: int,
    dilation: int,
    border: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value and bias; see `reference`."""
    batch, height, width, channels = query.shape
    heads = len(bias)
    mean = (grad.float() * out.float()).unflatten(-1, (heads, -1)).sum(-1).permute(0, 3, 1, 2)
    found = [torch.empty(query.shape) for _ in range(3)]
    of_bias = torch.zeros(batch * height, *bias.shape)  # of every line of the maps, summed below
    lanes = lanes_for(channels // heads)
    # From the queries: (own, own, other, other) and what is written; from the keys the same turned round.
    passes = (
        (False, (query, grad, key, value), (found[0], found[0])),
        (True, (key, value, query, grad), (found[1], found[2])),
    )
    for transposed, read, written in passes:
        down, across = (walk(length, kernel, dilation, border, 1, transposed) for length in (height, width))
        _run(
            _gradients,
            *map(_flat, (*read, bias, rows, mean, *written, of_bias)),
            *down[:4],
            *across,
            *_form(kernel, border, heads, channels, lanes),
            transposed,
            lanes,
            FOUR,
        )
    of_query, of_key, of_value = (x.to(query.dtype) for x in found)
    return of_query, of_key, of_value, of_bias.sum(0).to(bias.dtype)


def _form(
    kernel: int, border: str, heads: int, channels: int, lanes: tuple[int, ...]
) -> tuple[int, int, int, int, bool]:
    """Kernel, offsets per axis, heads, vectors per head, and whether taps outside the map do not count."""
    vectors = channels // heads // len(lanes)
    return kernel, offsets_per_axis(kernel, border), heads, vectors, border == "mask"


@_compiled
def _forward(
    query: Any,
    key: Any,
    value: Any,
    bias: Any,
    out: Any,
    rows: Any,
    row_first: Any,
    row_other: Any,
    row_tap: Any,
    row_offset: Any,
    first: Any,
    other: Any,
    tap: Any,
    offset: Any,
    regular: Any,
    shift: Any,
    step: Any,
    kernel: Any,
    axis: Any,
    heads: Any,
    chunks: Any,
    masked: Any,
    lanes: Any,
    four: Any,
    sixteen: Any,
) -> None:
    """`axis` is the offsets per axis of the bias table; the walks are over a map of the output's size."""
    taps, vector, offsets = kernel * kernel, len(lanes), axis * axis
    width_of_head = chunks * vector
    channels = heads * width_of_head
    height, width = len(row_first) - 1, len(first) - 1
    room = (taps + 3) // 4 * 16  # for four positions, filled up to whole vectors of sixteen
    for line in prange(out.size // (width * channels)):
        image, row = line // height, line % height
        logits, ends = np.empty(room, np.float32), np.empty(8, np.float32)
        column = 0
        while column < width:
            begin = first[column]
            if regular[column]:
                across, along = shift[column] * channels, step[column] * channels
                for head in range(heads):
                    own = (line * width + column) * channels + head * width_of_head
                    for t in range(room // 4):
                        absent = masked or t >= taps  # else its key is 0
                        logit = NEVER if absent else bias[head * offsets + t % offsets]
                        store(logits, t * 4, splat(logit, four))
                    for entry in range(row_first[row], row_first[row + 1]):
                        place = (image * height + row_other[entry]) * width + other[begin]
                        q = place * channels + head * width_of_head
                        t = row_tap[entry] * kernel
                        table = head * offsets + row_offset[entry] * axis + offset[begin]
                        for k in range(kernel):
                            a, b, c, d = zeros(lanes), zeros(lanes), zeros(lanes), zeros(lanes)
                            for chunk in range(chunks):
                                p, r = own + chunk * vector, q + chunk * vector
                                a = fma(load(query, p, lanes), load(key, r, lanes), a)
                                p, r = p + channels, r + across
                                b = fma(load(query, p, lanes), load(key, r, lanes), b)
                                p, r = p + channels, r + across
                                c = fma(load(query, p, lanes), load(key, r, lanes), c)
                                p, r = p + channels, r + across
                                d = fma(load(query, p, lanes), load(key, r, lanes), d)
                            store(logits, (t + k) * 4, plus(totals(a, b, c, d), splat(bias[table + k], four)))
                            q += along
                    high = load(logits, 0, sixteen)
                    for u in range(16, room, 16):
                        high = larger(high, load(logits, u, sixteen))
                    highest = folded_maximum(high)
                    high, sums = four_times(highest), zeros(sixteen)
                    for u in range(0, room, 16):
                        weight = exponential(minus(load(logits, u, sixteen), high))
                        store(logits, u, weight)
                        sums = plus(sums, weight)
                    store(ends, 0, folded_sum(sums))
                    store(ends, 4, highest)
                    at = ((image * heads + head) * height + row) * width + column
                    for k in range(4):
                        rows[at + k] = ends[4 + k] + np.log(ends[k])
                    for chunk in range(chunks):
                        a, b, c, d = zeros(lanes), zeros(lanes), zeros(lanes), zeros(lanes)
                        for entry in range(row_first[row], row_first[row + 1]):
                            place = (image * height + row_other[entry]) * width + other[begin]
                            q = place * channels + head * width_of_head + chunk * vector
                            t = row_tap[entry] * kernel * 4
                            u, v = load(value, q, lanes), load(value, q + across, lanes)
                            w, x = load(value, q + 2 * across, lanes), load(value, q + 3 * across, lanes)
                            for k in range(kernel):
                                a = fma(splat(logits[t], lanes), u, a)
                                b = fma(splat(logits[t + 1], lanes), v, b)
                                c = fma(splat(logits[t + 2], lanes), w, c)
                                d = fma(splat(logits[t + 3], lanes), x, d)
                                if k == kernel - 1:
                                    break
                                t += 4
                                q += along
                                if along == across:
                                    u, v, w, x = v, w, x, load(value, q + 3 * across, lanes)
                                else:
                                    u, v = load(value, q, lanes), load(value, q + across, lanes)
                                    w = load(value, q + 2 * across, lanes)
                                    x = load(value, q + 3 * across, lanes)
                        p = own + chunk * vector
                        one = np.float32(1)
                        store(out, p, times(a, splat(one / ends[0], lanes)))
                        store(out, p + channels, times(b, splat(one / ends[1], lanes)))
                        store(out, p + 2 * channels, times(c, splat(one / ends[2], lanes)))
                        store(out, p + 3 * channels, times(d, splat(one / ends[3], lanes)))
                column += 4
                continue
            for head in range(heads):
                own = (line * width + column) * channels + head * width_of_head
                for t in range(taps):
                    logits[t] = NEVER if masked else bias[head * offsets + t % offsets]
                for entry in range(row_first[row], row_first[row + 1]):
                    for each in range(begin, first[column + 1]):
                        place = (image * height + row_other[entry]) * width + other[each]
                        q = place * channels + head * width_of_head
                        a = zeros(lanes)
                        for chunk in range(chunks):
                            p = chunk * vector
                            a = fma(load(query, own + p, lanes), load(key, q + p, lanes), a)
                        table = head * offsets + row_offset[entry] * axis + offset[each]
                        logits[row_tap[entry] * kernel + tap[each]] = total(a) + bias[table]
                most, mass = NEVER, np.float32(0)
                for t in range(taps):
                    most = max(most, logits[t])
                for t in range(taps):
                    logits[t] = np.exp(logits[t] - most)
                    mass += logits[t]
                rows[((image * heads + head) * height + row) * width + column] = most + np.log(mass)
                for chunk in range(chunks):
                    a = zeros(lanes)
                    for entry in range(row_first[row], row_first[row + 1]):
                        for each in range(begin, first[column + 1]):
                            place = (image * height + row_other[entry]) * width + other[each]
                            q = place * channels + head * width_of_head + chunk * vector
                            weight = logits[row_tap[entry] * kernel + tap[each]]
                            a = fma(splat(weight, lanes), load(value, q, lanes), a)
                    store(out, own + chunk * vector, times(a, splat(np.float32(1) / mass, lanes)))
            column += 1


@_compiled
def _gradients(
    own_first: Any,
    own_second: Any,
    other_first: Any,
    other_second: Any,
    bias: Any,
    rows: Any,
    mean: Any,
    to_first: Any,
    to_second: Any,
    of_bias: Any,
    row_first: Any,
    row_other: Any,
    row_tap: Any,
    row_offset: Any,
    first: Any,
    other: Any,
    tap: Any,
    offset: Any,
    regular: Any,
    shift: Any,
    step: Any,
    kernel: Any,
    axis: Any,
    heads: Any,
    chunks: Any,
    masked: Any,
    transposed: Any,
    lanes: Any,
    four: Any,
) -> None:
    """One pass over the pairs; `first` and `second` are query and gradient, or key and value.

    Logits are dot products of the first of either side, gradients of weights those of the second.
    From the queries, their gradient and that of the bias are written; transposed, from the keys,
    those of key and value. Rows and means belong to the query of a pair.
    """
    taps, vector, offsets = kernel * kernel, len(lanes), axis * axis
    width_of_head = chunks * vector
    channels = heads * width_of_head
    height, width = len(row_first) - 1, len(first) - 1
    for line in prange(to_first.size // (width * channels)):
        image, row = line // height, line % height
        # From the keys, border `inside` has more than K queries for some rows, and one tap for several.
        room = max((row_first[row + 1] - row_first[row]) * kernel, taps) * 4
        weights, pulls = np.empty(room, np.float32), np.empty(room, np.float32)
        column = 0
        while column < width:
            begin = first[column]
            if regular[column]:
                across, along = shift[column] * channels, step[column] * channels
                for head in range(heads):
                    own = (line * width + column) * channels + head * width_of_head
                    above = (image * heads + head) * height
                    here = (above + row) * width + column
                    if not transposed and not masked and row_first[row + 1] - row_first[row] < kernel:
                        present = np.zeros(kernel, np.bool_)
                        for entry in range(row_first[row], row_first[row + 1]):
                            present[row_tap[entry]] = True
                        for t in range(taps):  # a tap outside the map pulls at its bias alone
                            if not present[t // kernel]:
                                logit = splat(bias[head * offsets + t], four)
                                weight = exponential(minus(logit, load(rows, here, four)))
                                place = (line * heads + head) * offsets + t
                                of_bias[place] -= total(times(weight, load(mean, here, four)))
                    for entry in range(row_first[row], row_first[row + 1]):
                        place = (image * height + row_other[entry]) * width + other[begin]
                        q = place * channels + head * width_of_head
                        there = (above + row_other[entry]) * width + other[begin]
                        t = (entry - row_first[row]) * kernel * 4
                        table = head * offsets + row_offset[entry] * axis + offset[begin]
                        for k in range(kernel):
                            a, b, c, d = zeros(lanes), zeros(lanes), zeros(lanes), zeros(lanes)
                            e, f, g, h = zeros(lanes), zeros(lanes), zeros(lanes), zeros(lanes)
                            for chunk in range(chunks):
                                p, r = own + chunk * vector, q + chunk * vector
                                a = fma(load(own_first, p, lanes), load(other_first, r, lanes), a)
                                e = fma(load(own_second, p, lanes), load(other_second, r, lanes), e)
                                p, r = p + channels, r + across
                                b = fma(load(own_first, p, lanes), load(other_first, r, lanes), b)
                                f = fma(load(own_second, p, lanes), load(other_second, r, lanes), f)
                                p, r = p + channels, r + across
                                c = fma(load(own_first, p, lanes), load(other_first, r, lanes), c)
                                g = fma(load(own_second, p, lanes), load(other_second, r, lanes), g)
                                p, r = p + channels, r + across
                                d = fma(load(own_first, p, lanes), load(other_first, r, lanes), d)
                                h = fma(load(own_second, p, lanes), load(other_second, r, lanes), h)
                            at = there if transposed else here
                            logit = plus(totals(a, b, c, d), splat(bias[table + k], four))
                            weight = exponential(minus(logit, load(rows, at, four)))
                            pull = times(weight, minus(totals(e, f, g, h), load(mean, at, four)))
                            store(weights, t, weight)
                            store(pulls, t, pull)
                            if not transposed:
                                of_bias[line * heads * offsets + table + k] += total(pull)
                            q += along
                            there += step[column]
                            t += 4
                    for chunk in range(chunks):
                        a, b, c, d = zeros(lanes), zeros(lanes), zeros(lanes), zeros(lanes)
                        e, f, g, h = zeros(lanes), zeros(lanes), zeros(lanes), zeros(lanes)
                        for entry in range(row_first[row], row_first[row + 1]):
                            place = (image * height + row_other[entry]) * width + other[begin]
                            q = place * channels + head * width_of_head + chunk * vector
                            t = (entry - row_first[row]) * kernel * 4
                            for _ in range(kernel):
                                r = q
                                a = fma(splat(pulls[t], lanes), load(other_first, r, lanes), a)
                                r += across
                                b = fma(splat(pulls[t + 1], lanes), load(other_first, r, lanes), b)
                                r += across
                                c = fma(splat(pulls[t + 2], lanes), load(other_first, r, lanes), c)
                                r += across
                                d = fma(splat(pulls[t + 3], lanes), load(other_first, r, lanes), d)
                                if transposed:
                                    r = q
                                    e = fma(splat(weights[t], lanes), load(other_second, r, lanes), e)
                                    r += across
                                    f = fma(splat(weights[t + 1], lanes), load(other_second, r, lanes), f)
                                    r += across
                                    g = fma(splat(weights[t + 2], lanes), load(other_second, r, lanes), g)
                                    r += across
                                    h = fma(splat(weights[t + 3], lanes), load(other_second, r, lanes), h)
                                t += 4
                                q += along
                        p = own + chunk * vector
                        store(to_first, p, a)
                        store(to_first, p + channels, b)
                        store(to_first, p + 2 * channels, c)
                        store(to_first, p + 3 * channels, d)
                        if transposed:
                            store(to_second, p, e)
                            store(to_second, p + channels, f)
                            store(to_second, p + 2 * channels, g)
                            store(to_second, p + 3 * channels, h)
                column += 4
                continue
            for head in range(heads):
                own = (line * width + column) * channels + head * width_of_head
                above = (image * heads + head) * height
                here = (above + row) * width + column
                for chunk in range(chunks):
                    store(to_first, own + chunk * vector, zeros(lanes))
                    if transposed:
                        store(to_second, own + chunk * vector, zeros(lanes))
                met = (row_first[row + 1] - row_first[row]) * (first[column + 1] - begin)
                if not transposed and not masked and met < taps:
                    for t in range(taps):
                        weights[t] = 1
                    for entry in range(row_first[row], row_first[row + 1]):
                        for each in range(begin, first[column + 1]):
                            weights[row_tap[entry] * kernel + tap[each]] = 0
                    for t in range(taps):  # a tap outside the map pulls at its bias alone
                        if weights[t] == 1:
                            weight = np.exp(bias[head * offsets + t] - rows[here])
                            of_bias[(line * heads + head) * offsets + t] -= weight * mean[here]
                for entry in range(row_first[row], row_first[row + 1]):
                    for each in range(begin, first[column + 1]):
                        place = (image * height + row_other[entry]) * width + other[each]
                        q = place * channels + head * width_of_head
                        table = head * offsets + row_offset[entry] * axis + offset[each]
                        at = (above + row_other[entry]) * width + other[each] if transposed else here
                        a, b = zeros(lanes), zeros(lanes)
                        for chunk in range(chunks):
                            p, r = own + chunk * vector, q + chunk * vector
                            a = fma(load(own_first, p, lanes), load(other_first, r, lanes), a)
                            b = fma(load(own_second, p, lanes), load(other_second, r, lanes), b)
                        weight = np.exp(total(a) + bias[table] - rows[at])
                        pull = weight * (total(b) - mean[at])
                        if not transposed:
                            of_bias[line * heads * offsets + table] += pull
                        for chunk in range(chunks):
                            p, r = own + chunk * vector, q + chunk * vector
                            a = fma(splat(pull, lanes), load(other_first, r, lanes), load(to_first, p, lanes))
                            store(to_first, p, a)
                            if transposed:
                                b = load(to_second, p, lanes)
                                b = fma(splat(weight, lanes), load(other_second, r, lanes), b)
                                store(to_second, p, b)
            column += 1
