"""Neighbourhood attention on a CPU: loops compiled by Numba, float32, without the K² weights in memory.

Four neighbouring positions are computed together, so that what one of them meets is loaded once for
all: `_products` are the dot products of a block with all that it meets, `_weighted` the sums with
their weights, and both serve the forward pass and its gradients. The backward pass runs twice over the
pairs, once from the queries and once from the keys, and computes weights and their gradients again in
both: sums are gathered, nothing is added to by two threads, and the same input gives the same bits.

Operations, stage 1 of Swin-T, batch 8 (56×56, 96 channels, 3 heads, K = 7): 236 M
multiply-accumulates forward, 826 M backward, 3.7 M exponentials in each of the three passes. Of four
positions not all meet what one of them does: K + 3 columns are computed in a row where K are needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from ablate.ops.kernels.geometry import offsets_per_axis
from ablate.ops.kernels.loops.run import FAST, compiled, flat, run
from ablate.ops.kernels.loops.simd import (
    exponential,
    filter_at,
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
    totals,
    zeros,
)
from ablate.ops.kernels.loops.walks import BLOCK, NONE, Blocks, Walk, blocks, walk

NEVER = np.float32(-1e30)  # the logit of a tap that does not count
FOUR, SIXTEEN = (0,) * 4, (0,) * 16


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    axial: Tensor | None,
    kernel: int,
    dilation: int,
    border: str,
) -> tuple[Tensor, Tensor]:
    """Output (B, H, W, C), and the rows' logarithms (B, heads, H, W); see `reference`."""
    batch, height, width, channels = query.shape
    heads = len(bias)
    out, rows = torch.empty(query.shape), torch.empty(batch, heads, height, width)
    down, across = _tables(height, width, kernel, dilation, border, transposed=False)
    run(
        _forward,
        *map(flat, (query, key, value, out, rows)),
        _bias_of_pairs(bias, kernel, border, across),
        flat(bias),
        None if axial is None else flat(axial),
        _absent(across, kernel, border),
        *down,
        *across,
        _whole(across, kernel, border),
        (heads, kernel, offsets_per_axis(kernel, border), _room(down, across, kernel), border == "zero"),
        width,
        *_vectors(channels // heads),
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
    axial: Tensor | None,
    out: Tensor,
    rows: Tensor,
    kernel: int,
    dilation: int,
    border: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value, bias and axial; see `reference`."""
    batch, height, width, channels = query.shape
    heads, axis = len(bias), offsets_per_axis(kernel, border)
    mean = torch.empty(batch, heads, height, width)
    for image in range(batch):  # one at a time: no copy of all maps
        product = grad[image].float() * out[image].float()
        mean[image] = product.unflatten(-1, (heads, -1)).sum(-1).permute(2, 0, 1)
    of_query, of_key, of_value = (torch.empty(query.shape) for _ in range(3))
    of_bias = torch.zeros(batch * height, *bias.shape)  # of every line of the maps, summed below
    of_axial = torch.zeros(() if axial is None else axial.shape)
    per_query = None if axial is None else flat(axial)
    down, across = _tables(height, width, kernel, dilation, border, transposed=False)
    run(
        _from_queries,
        *map(flat, (query, grad, key, value, rows, mean, of_query, of_bias, of_axial)),
        _bias_of_pairs(bias, kernel, border, across),
        flat(bias),
        per_query,
        _absent(across, kernel, border),
        *down,
        *across,
        _whole(across, kernel, border),
        (heads, kernel, axis, _room(down, across, kernel), border == "zero"),
        width,
        *_vectors(channels // heads),
        FOUR,
        SIXTEEN,
    )
    down, across = _tables(height, width, kernel, dilation, border, transposed=True)
    run(
        _from_keys,
        *map(flat, (key, value, query, grad, rows, mean, of_key, of_value)),
        _bias_of_pairs(bias, kernel, border, across),
        per_query,
        *down,
        *across,
        (heads, axis, _room(down, across, kernel)),
        width,
        *_vectors(channels // heads),
        FOUR,
        SIXTEEN,
    )
    of_query, of_key, of_value = (x.to(query.dtype) for x in (of_query, of_key, of_value))
    of_axial = query.new_empty(0) if axial is None else of_axial.to(axial.dtype)
    return of_query, of_key, of_value, of_bias.sum(0).to(bias.dtype), of_axial


def _tables(
    height: int, width: int, kernel: int, dilation: int, border: str, *, transposed: bool
) -> tuple[Walk, Blocks]:
    neighborhood = (kernel, dilation, border, 1, transposed)
    return walk(height, *neighborhood), blocks(width, *neighborhood)


def _bias_of_pairs(bias: Tensor, kernel: int, border: str, across: Blocks) -> np.ndarray:
    """(heads, row offsets, entries of the columns' blocks, 4), flat; NEVER where two do not meet."""
    axis = offsets_per_axis(kernel, border)
    table = bias.detach().float().numpy().reshape(len(bias), axis, axis)
    return np.where(across.tap == NONE, NEVER, table[:, :, across.offset]).astype(np.float32).reshape(-1)


def _absent(across: Blocks, kernel: int, border: str) -> np.ndarray:
    """(blocks, K, 4), flat: 0 for a tap beyond the map's side that counts, with key 0; else NEVER."""
    found = np.full((len(across.regular), kernel, BLOCK), 0 if border == "zero" else NEVER, np.float32)
    for block in range(len(found)):
        met = across.tap.reshape(-1, BLOCK)[across.first[block] : across.first[block + 1]]
        entry, place = np.nonzero(met != NONE)
        found[block, met[entry, place], place] = NEVER
    return found.reshape(-1)


def _whole(across: Blocks, kernel: int, border: str) -> np.ndarray:
    """(blocks,): whether no position of a block has a tap beyond the map's side that counts."""
    present = _absent(across, kernel, border).reshape(len(across.regular), -1) < 0
    return np.asarray(present.all(axis=1))


def _room(down: Walk, across: Blocks, kernel: int) -> int:
    """Pairs of one position of a block, at most, absent ones included, in whole vectors of four."""
    pairs = int(np.diff(down.first).max() * np.diff(across.first).max())
    return -(-(pairs + kernel * kernel) // BLOCK) * BLOCK


def _vectors(width: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Vectors in a head, and lanes, both as tuples of that length, which the compiler knows."""
    lanes = lanes_for(width)
    return (0,) * (width // len(lanes)), lanes


@njit(fastmath=FAST)
def _products(
    mine: Any,
    position: Any,
    apart: Any,
    theirs: Any,
    place: Any,
    other: Any,
    begin: Any,
    end: Any,
    channels: Any,
    plus_these: Any,
    table: Any,
    out: Any,
    number: Any,
    parts: Any,
    lanes: Any,
    four: Any,
) -> None:
    """Dot products of a block's four positions with those that it meets in a row, plus what a table adds.

    `position` is the first one's place, `apart` has how far the others are from it; four products at a
    time go to `out`.
    """
    vector = len(lanes)
    p1, p2, p3 = position + apart[0], position + apart[1], position + apart[2]
    for entry in range(begin, end):
        q = place + other[entry] * channels
        a, b, c, d = zeros(lanes), zeros(lanes), zeros(lanes), zeros(lanes)
        for part in range(len(parts)):
            ahead = part * vector
            x = load(theirs, q + ahead, lanes)
            a = fma(load(mine, position + ahead, lanes), x, a)
            b = fma(load(mine, p1 + ahead, lanes), x, b)
            c = fma(load(mine, p2 + ahead, lanes), x, c)
            d = fma(load(mine, p3 + ahead, lanes), x, d)
        store(out, number, plus(totals(a, b, c, d), load(plus_these, table, four)))
        number, table = number + 4, table + 4


@njit(fastmath=FAST)
def _weighted(
    weights: Any,
    values: Any,
    place: Any,
    channels: Any,
    row_other: Any,
    row_begin: Any,
    row_end: Any,
    line: Any,
    other: Any,
    begin: Any,
    end: Any,
    out: Any,
    position: Any,
    left: Any,
    parts: Any,
    lanes: Any,
) -> None:
    """Sums of what a block meets, by the weights that `_products` left in the same order."""
    vector = len(lanes)
    for part in range(len(parts)):
        a, b, c, d = zeros(lanes), zeros(lanes), zeros(lanes), zeros(lanes)
        number = 0
        for row in range(row_begin, row_end):
            start = place + row_other[row] * line + part * vector
            for entry in range(begin, end):
                x = load(values, start + other[entry] * channels, lanes)
                a = fma(filter_at(weights, number, None, None, 0, lanes), x, a)
                b = fma(filter_at(weights, number + 1, None, None, 0, lanes), x, b)
                c = fma(filter_at(weights, number + 2, None, None, 0, lanes), x, c)
                d = fma(filter_at(weights, number + 3, None, None, 0, lanes), x, d)
                number += 4
        p = position + part * vector
        store(out, p, a)
        if left > 1:
            store(out, p + channels, b)
        if left > 2:
            store(out, p + 2 * channels, c)
        if left > 3:
            store(out, p + 3 * channels, d)


@njit(fastmath=FAST)
def _apart(left: Any, step: Any) -> Any:
    """From the first position of a block to the others; those beyond the line are computed as the first."""
    return (
        step if left > 1 else 0,
        2 * step if left > 2 else 0,
        3 * step if left > 3 else 0,
    )


@njit(fastmath=FAST)
def _of_block(rows: Any, position: Any, apart: Any, scratch: Any, four: Any) -> Any:
    """A vector of the four positions' entries."""
    scratch[0] = rows[position]
    scratch[1] = rows[position + apart[0]]
    scratch[2] = rows[position + apart[1]]
    scratch[3] = rows[position + apart[2]]
    return load(scratch, 0, four)


@njit(fastmath=FAST)
def _of_queries(
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
    """What the four queries of a block add to their products: biases and axial terms, to `out`.

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
        row = _of_block(axial, own + row_offset[each], far, scratch, four)
        here = table + row_offset[each] * of_row + begin * 4
        for u in range(0, 4 * (end - begin), 4):
            both = plus(row, load(columns, u, four))
            store(out, number, plus(load(pair_bias, here + u, four), both))
            number += 4


@njit(fastmath=FAST)
def _of_readers(
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
    """The same for a block of keys: the terms of the queries in a row that read them, one `row` offset."""
    scratch = np.empty(4, np.float32)
    for entry in range(begin, end):
        own = line + other[entry] * apart
        for k in range(4):
            scratch[k] = axial[own + row] + axial[own + axis + offset[4 * entry + k]]
        store(out, number, plus(load(pair_bias, table, four), load(scratch, 0, four)))
        number, table = number + 4, table + 4


@njit(fastmath=FAST)
def _pull_axial(
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


@njit(fastmath=FAST)
def _absent_logits(
    logits: Any,
    number: Any,
    bias: Any,
    absent: Any,
    row_tap: Any,
    row_begin: Any,
    row_end: Any,
    kernel: Any,
    axial: Any,
    own: Any,
    far: Any,
    four: Any,
) -> Any:
    """Taps beyond the map that count: their logits are biases and axial terms, their values 0."""
    scratch = np.empty(4, np.float32)
    for row in range(kernel):
        here = row_tap[row_begin] <= row <= row_tap[row_end - 1]
        for k in range(kernel):
            logit = splat(bias[row * kernel + k], four)
            if axial is not None:
                logit = plus(logit, _of_block(axial, own + row, far, scratch, four))
                logit = plus(logit, _of_block(axial, own + kernel + k, far, scratch, four))
            if here:
                logit = plus(logit, load(absent, k * 4, four))
            store(logits, number, logit)
            number += 4
    return number


@compiled
def _forward(
    query: Any,
    key: Any,
    value: Any,
    out: Any,
    rows: Any,
    pair_bias: Any,
    bias: Any,
    axial: Any,
    absent: Any,
    row_first: Any,
    row_other: Any,
    row_tap: Any,
    row_offset: Any,
    first: Any,
    other: Any,
    tap: Any,
    offset: Any,
    regular: Any,
    whole: Any,
    form: Any,
    width: Any,
    parts: Any,
    lanes: Any,
    four: Any,
    sixteen: Any,
) -> None:
    """Logits of a block, their softmax, and the sum, a head at a time."""
    heads, kernel, axis, room, counts = form
    width_of_head = len(parts) * len(lanes)
    channels, entries = heads * width_of_head, len(other)
    height = len(row_first) - 1
    for line in prange(out.size // (width * channels)):
        image, row = line // height, line % height
        logits, scratch = np.empty(room * 4, np.float32), np.empty(8, np.float32)
        row_begin, row_end = row_first[row], row_first[row + 1]
        for block in range(len(first) - 1):
            begin, end, left = first[block], first[block + 1], width - 4 * block
            apart, far = _apart(left, channels), _apart(left, heads * 2 * axis)
            for head in range(heads):
                position = (line * width + 4 * block) * channels + head * width_of_head
                place = image * height * width * channels + head * width_of_head
                own = ((line * width + 4 * block) * heads + head) * 2 * axis
                if axial is not None:
                    _of_queries(
                        pair_bias, head * axis * entries * 4, axial, own, far, row_offset, row_begin, row_end,
                        offset, begin, end, axis, entries * 4, logits, four,
                    )  # fmt: skip
                n = 0
                for each in range(row_begin, row_end):
                    start = place + row_other[each] * width * channels
                    plus_these, table = pair_bias, ((head * axis + row_offset[each]) * entries + begin) * 4
                    if axial is not None:
                        plus_these, table = logits, n
                    _products(
                        query, position, apart, key, start, other, begin, end, channels, plus_these, table,
                        logits, n, parts, lanes, four,
                    )  # fmt: skip
                    n += 4 * (end - begin)
                m = n
                if counts and (not whole[block] or row_end - row_begin < kernel):
                    m = _absent_logits(
                        logits, n, bias[head * axis * axis :], absent[block * kernel * 4 :],
                        row_tap, row_begin, row_end, kernel, axial, own, far, four,
                    )  # fmt: skip
                while m % 16:
                    store(logits, m, splat(NEVER, four))
                    m += 4
                high = load(logits, 0, sixteen)
                for u in range(16, m, 16):
                    high = larger(high, load(logits, u, sixteen))
                highest = folded_maximum(high)
                high, sums = four_times(highest), zeros(sixteen)
                for u in range(0, m, 16):
                    weight = exponential(minus(load(logits, u, sixteen), high))
                    store(logits, u, weight)
                    sums = plus(sums, weight)
                store(scratch, 0, folded_sum(sums))
                store(scratch, 4, highest)
                at = ((image * heads + head) * height + row) * width + 4 * block
                for k in range(4):
                    if k < left:
                        rows[at + k] = scratch[4 + k] + np.log(scratch[k])
                    scratch[k] = 1 / scratch[k]
                scale = four_times(load(scratch, 0, four))
                for u in range(0, n, 16):
                    store(logits, u, times(load(logits, u, sixteen), scale))
                _weighted(
                    logits, value, place, channels, row_other, row_begin, row_end, width * channels,
                    other, begin, end, out, position, left, parts, lanes,
                )  # fmt: skip


@compiled
def _from_queries(
    query: Any,
    grad: Any,
    key: Any,
    value: Any,
    rows: Any,
    mean: Any,
    of_query: Any,
    of_bias: Any,
    of_axial: Any,
    pair_bias: Any,
    bias: Any,
    axial: Any,
    absent: Any,
    row_first: Any,
    row_other: Any,
    row_tap: Any,
    row_offset: Any,
    first: Any,
    other: Any,
    tap: Any,
    offset: Any,
    regular: Any,
    whole: Any,
    form: Any,
    width: Any,
    parts: Any,
    lanes: Any,
    four: Any,
    sixteen: Any,
) -> None:
    """Gradients of the queries and of their axial terms, and of the bias for each line of the maps."""
    heads, kernel, axis, room, counts = form
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
            apart = _apart(left, channels)
            near, far = _apart(left, 1), _apart(left, heads * 2 * axis)
            for head in range(heads):
                position = (line * width + 4 * block) * channels + head * width_of_head
                place = image * height * width * channels + head * width_of_head
                at = ((image * heads + head) * height + row) * width + 4 * block
                high = four_times(_of_block(rows, at, near, scratch, four))
                middle = four_times(_of_block(mean, at, near, scratch, four))
                own_bias = (line * heads + head) * offsets
                own = ((line * width + 4 * block) * heads + head) * 2 * axis
                if axial is not None:
                    _of_queries(
                        pair_bias, head * axis * entries * 4, axial, own, far, row_offset, row_begin, row_end,
                        offset, begin, end, axis, entries * 4, weights, four,
                    )  # fmt: skip
                n = 0
                for each in range(row_begin, row_end):
                    start = place + row_other[each] * width * channels
                    plus_these, table = pair_bias, ((head * axis + row_offset[each]) * entries + begin) * 4
                    if axial is not None:
                        plus_these, table = weights, n
                    _products(
                        query, position, apart, key, start, other, begin, end, channels, plus_these, table,
                        weights, n, parts, lanes, four,
                    )  # fmt: skip
                    _products(
                        grad, position, apart, value, start, other, begin, end, channels, nothing, 0,
                        pulls, n, parts, lanes, four,
                    )  # fmt: skip
                    n += 4 * (end - begin)
                for u in range(0, n, 16):
                    weight = exponential(minus(load(weights, u, sixteen), high))
                    store(pulls, u, times(weight, minus(load(pulls, u, sixteen), middle)))
                _weighted(
                    pulls, key, place, channels, row_other, row_begin, row_end, width * channels,
                    other, begin, end, of_query, position, left, parts, lanes,
                )  # fmt: skip
                if axial is not None:
                    _pull_axial(
                        pulls, of_axial, own, heads * 2 * axis, row_offset, row_begin, row_end, tap, offset,
                        begin, end, axis, min(left, 4), four,
                    )  # fmt: skip
                if regular[block]:
                    shared = begin
                    for u in range(0, n, 4):
                        v = head * kernel * span * 4 + u
                        store(common, v, plus(load(common, v, four), load(pulls, u, four)))
                    if row_end - row_begin == kernel:
                        continue
                else:
                    _pull_bias(
                        pulls, of_bias, own_bias, row_offset, row_begin, row_end, axis, tap, offset,
                        begin, end, min(left, 4),
                    )  # fmt: skip
                if counts and (not whole[block] or row_end - row_begin < kernel):
                    m = _absent_logits(
                        weights, 0, bias[head * offsets :], absent[block * kernel * 4 :],
                        row_tap, row_begin, row_end, kernel, axial, own, far, four,
                    )  # fmt: skip
                    high_of_block = _of_block(rows, at, near, scratch, four)
                    for u in range(0, m, 4):
                        store(weights, u, exponential(minus(load(weights, u, four), high_of_block)))
                        for k in range(min(left, 4)):
                            pull = weights[u + k] * mean[at + k]
                            of_bias[own_bias + u // 4] -= pull
                            if axial is not None:
                                terms = own + k * heads * 2 * axis
                                of_axial[terms + u // 4 // kernel] -= pull
                                of_axial[terms + axis + u // 4 % kernel] -= pull
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
def _from_keys(
    key: Any,
    value: Any,
    query: Any,
    grad: Any,
    rows: Any,
    mean: Any,
    of_key: Any,
    of_value: Any,
    pair_bias: Any,
    axial: Any,
    row_first: Any,
    row_other: Any,
    row_tap: Any,
    row_offset: Any,
    first: Any,
    other: Any,
    tap: Any,
    offset: Any,
    regular: Any,
    form: Any,
    width: Any,
    parts: Any,
    lanes: Any,
    four: Any,
    sixteen: Any,
) -> None:
    """Gradients of keys and values: what a block meets are queries, with their rows and means."""
    heads, axis, room = form
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
            apart = _apart(left, channels)
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
                        _of_readers(
                            pair_bias, table, axial, of_line, heads * 2 * axis, other, offset, begin, end,
                            row_offset[each], axis, weights, n, four,
                        )  # fmt: skip
                        plus_these, table = weights, n
                    _products(
                        key, position, apart, query, start, other, begin, end, channels, plus_these, table,
                        weights, n, parts, lanes, four,
                    )  # fmt: skip
                    _products(
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
                _weighted(
                    pulls, query, place, channels, row_other, row_begin, row_end, width * channels,
                    other, begin, end, of_key, position, left, parts, lanes,
                )  # fmt: skip
                _weighted(
                    weights, grad, place, channels, row_other, row_begin, row_end, width * channels,
                    other, begin, end, of_value, position, left, parts, lanes,
                )  # fmt: skip
