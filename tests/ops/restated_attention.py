"""Operators that attend, written from their formulas tap by tap."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from tests.ops.definition import (
    Position,
    Tap,
    at,
    batch_norm,
    block_means,
    neighbors,
    sliding,
    summed,
)
from tests.ops.restated_filters import dilated_reparam, softmax
from torch import Tensor, nn

# Windows whose positions exchange values by weights of their centre


def exchanged(
    operator: nn.Module, x: Tensor, given: SimpleNamespace, values: Callable[[Tensor], Tensor]
) -> Tensor:
    """Every window's slots (B, K², ·) become values, are mixed for each head, and added to the map."""
    heads = operator.weights.heads
    logits = operator.weights.expand(block_means(x, given.grid)) * (x.shape[-1] // heads) ** -0.5
    attention = softmax(logits.unflatten(-1, (heads, given.kernel**2, -1)))
    found = torch.zeros_like(x)
    for (row, column), met in sliding(*x.shape[1:3], given.kernel, stride=given.grid).items():
        inside = torch.tensor([float(key is not None) for key, _ in met], dtype=x.dtype)
        slots = values(torch.stack([at(x, key) for key, _ in met], 1), inside[:, None])
        by_head = slots.unflatten(-1, (heads, -1))
        mixed = torch.einsum(
            "bgts,bsgd->btgd", attention[:, row // given.grid, column // given.grid], by_head
        )
        for (key, _), part in zip(met, mixed.flatten(2).unbind(1), strict=True):
            if key is not None:
                found[:, key[0], key[1]] += part
    return operator.output(found)


def outlook(operator: nn.Module, x: Tensor, given: SimpleNamespace) -> Tensor:
    return exchanged(operator, x, given, lambda slots, inside: operator.value(slots) * inside)


def csa(operator: nn.Module, x: Tensor, given: SimpleNamespace) -> Tensor:
    return exchanged(operator, x, given, lambda slots, _: torch.einsum("btc,tdc->btd", slots, operator.taps))


def contmix(operator: nn.Module, x: Tensor, given: SimpleNamespace) -> Tensor:
    """Filter by filter; only what enlarges a map and averages it back is PyTorch's."""

    def projected(layer: nn.Module, features: Tensor) -> Tensor:
        return batch_norm(features @ layer.linear.weight.T, layer.norm)

    heads, side, channels = operator.heads, given.pooled, x.shape[-1]
    surround = batch_norm(
        dilated_reparam(SimpleNamespace(sum=operator.surround), x, given), operator.surround_norm
    )
    large, (height, width) = x, x.shape[1:3]
    if min(height, width) < given.kernel:
        size = [int(given.kernel / min(height, width) * length) for length in (height, width)]
        large = F.interpolate(x.permute(0, 3, 1, 2), size, mode="bilinear").permute(0, 2, 3, 1)
    rows, columns = (
        [slice(i * length // side, -(-(i + 1) * length // side)) for i in range(side)]
        for length in large.shape[1:3]
    )
    means = [large[:, row, column].mean((1, 2)) for row in rows for column in columns]
    key = projected(operator.key, torch.stack(means, 1)[:, None]).unflatten(-1, (heads, -1))[:, 0]
    query = projected(operator.query, large).unflatten(-1, (heads, -1)) / (channels / heads) ** 0.5
    logits = operator.taps(torch.einsum("bhwgd,blgd->bhwgl", query, key))
    values, found, start = projected(operator.value, large).chunk(2, -1), [], 0
    for half, kernel, table in zip(values, (given.small_kernel, given.kernel), operator.biases, strict=True):
        own = logits[..., start : start + kernel**2]

        def filters(position: Position, met: list[Tap], own: Tensor = own, table: Tensor = table) -> Tensor:
            return softmax(at(own, position) + table[:, [offset for _, offset in met]])

        found.append(summed(half, sliding(*large.shape[1:3], kernel, border="inside"), filters))
        start += kernel**2
    mixed = torch.cat(found, -1)
    if large is not x:
        mixed = F.adaptive_avg_pool2d(mixed.permute(0, 3, 1, 2), (height, width)).permute(0, 2, 3, 1)
    mixed = projected(operator.fusion, mixed) + surround
    hidden = F.gelu(operator.excitation.reduce(mixed.mean((1, 2), keepdim=True)))
    mixed = mixed * torch.sigmoid(operator.excitation.expand(hidden))
    return operator.output(batch_norm(F.silu(projected(operator.gate, x)) * mixed, operator.norm))


# Attention in sliding neighborhoods


def sasa(operator: nn.Module, x: Tensor, given: SimpleNamespace) -> Tensor:
    _, height, width, _ = x.shape
    if given.border == "inside":
        missing = [max(0, given.kernel * given.dilation - side) for side in (height, width)]
        x = F.pad(x, (0, 0, 0, missing[1], 0, missing[0]))
    query, key, value = operator.query_key_value(x).unflatten(-1, (3, operator.heads, -1)).unbind(3)

    def weights(position: Position, met: list[Tap]) -> Tensor:
        q, found = at(query, position), []
        for neighbor, offset in met:
            row, column = divmod(offset, len(operator.columns))
            positional = torch.cat([operator.rows[row], operator.columns[column]])
            found.append((q * (at(key, neighbor) + positional)).sum(-1))
        return softmax(torch.stack(found, -1))

    taps = sliding(*x.shape[1:3], given.kernel, dilation=given.dilation, border=given.border)
    return block_means(summed(value.flatten(3), taps, weights)[:, :height, :width], given.stride)


def aggregated(operator: nn.Module, x: Tensor, given: SimpleNamespace) -> Tensor:
    """Position by position: neighbors inside the map, then the tokens of cells that may share positions."""
    heads, (height, width) = operator.heads, x.shape[1:3]
    cells = [
        [range(n * side // count, -(-(n + 1) * side // count)) for n in range(count)]
        for side, count in ((height, height // operator.reduction), (width, width // operator.reduction))
    ]

    def parts(y: Tensor) -> list[Tensor]:
        return list(operator.key_value(y).unflatten(-1, (2, heads, -1)).unbind(-3))

    def unit(y: Tensor) -> Tensor:
        return y / y.norm(dim=-1, keepdim=True)

    query = unit(operator.query(x).unflatten(-1, (heads, -1)))
    key, value = parts(x)
    before = F.gelu(operator.pool(x))
    pooled = [
        (rows, columns, before[:, list(rows)][:, :, list(columns)].mean((1, 2)))
        for rows in cells[0]
        for columns in cells[1]
    ]
    found = torch.zeros_like(value)
    for (row, column), met in sliding(height, width, given.kernel, border="mask").items():
        q = query[:, row, column]
        scale = F.softplus(operator.temperature)[:, None] * math.log(len(met) + len(pooled))
        asked, logits, values, more = (q + operator.query_embedding) * scale, [], [], []
        for neighbor, offset in met:
            bias = operator.relative_position_bias_table[:, offset]
            logits.append((asked * unit(at(key, neighbor))).sum(-1) + bias)
            values.append(at(value, neighbor))
            more.append((q * operator.tokens[..., offset]).sum(-1) + operator.token_bias[:, offset])
        for rows, columns, mean in pooled:
            far_key, far_value = parts(operator.norm(mean))
            apart = [row - sum(rows) / len(rows), column - sum(columns) / len(columns)]
            ratios = [a / max(side - 1, 1) for a, side in zip(apart, (height, width), strict=True)]
            u = 8 * torch.tensor(ratios, dtype=x.dtype)
            spaced = u.sign() * (u.abs() + 1).log2() / 3
            logits.append((asked * unit(far_key)).sum(-1) + operator.distance(spaced))
            values.append(far_value)
        weights = softmax(torch.stack(logits, -1))
        weights = weights + F.pad(torch.stack(more, -1), (0, len(pooled)))
        found[:, row, column] = (weights[..., None] * torch.stack(values, 2)).sum(2)
    return operator.output(found.flatten(3))


def plg(operator: nn.Module, x: Tensor, given: SimpleNamespace) -> Tensor:
    """Position by position: the window of each for the first heads, the pooled map for the others."""
    (height, width), size = x.shape[1:3], given.window
    filled = F.pad(x, (0, 0, 0, -width % size, 0, -height % size))
    cells = [
        [range(n * side // count, -(-(n + 1) * side // count)) for n in range(count)]
        for side, count in ((height, min(height, given.tokens)), (width, min(width, given.tokens)))
    ]
    blocks = [x[:, list(rows)][:, :, list(columns)] for rows in cells[0] for columns in cells[1]]
    pooled = torch.stack([block.mean((1, 2)) + block.amax((1, 2)) for block in blocks], 1)

    def attended(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """(B, C) by (B, n, C)."""
        q, k, v = (t.unflatten(-1, (heads, -1)) for t in (query, key, value))
        weights = softmax(torch.einsum("bgd,bngd->bgn", q, k) / q.shape[-1] ** 0.5)
        return torch.einsum("bgn,bngd->bgd", weights, v).flatten(1)

    query, key, value = operator.query_key_value(filled).chunk(3, -1)
    everywhere, found = operator.global_key_value(pooled).chunk(2, -1), []
    for row in range(height):
        for column in range(width):
            top, left = row // size * size, column // size * size
            window = (t[:, top : top + size, left : left + size].flatten(1, 2) for t in (key, value))
            near = attended(query[:, row, column], *window, operator.local_heads)
            asked = operator.global_query(x[:, row, column])
            found.append(torch.cat([near, attended(asked, *everywhere, operator.global_heads)], -1))
    return operator.output(torch.stack(found, 1).unflatten(1, (height, width)))


def rasa(operator: nn.Module, x: Tensor, given: SimpleNamespace) -> Tensor:
    """Position by position: every query meets every key of the reduced map."""
    heads, step = operator.heads, operator.reduction
    weight = operator.atrous.flatten(1)

    def attention(u: Tensor) -> Tensor:
        near = [neighbors(operator.query(u), given.kernel, dilation=rate) for rate in given.rates]
        query = sum(F.silu(torch.einsum("bhwtc,ct->bhwc", taps, weight)) for taps in near)
        source = u
        if step > 1:
            rows, columns = range(0, u.shape[1] - step + 1, step), range(0, u.shape[2] - step + 1, step)
            blocks = [u[:, y : y + step, z : z + step] for y in rows for z in columns]
            convolved = torch.stack(
                [torch.einsum("byzc,ocyz->bo", block, operator.reduce.weight) for block in blocks], 1
            )
            source = operator.norm(convolved + operator.reduce.bias)[:, None]  # (B, 1, keys, C)
        key, value = operator.key_value(source).flatten(1, 2).unflatten(-1, (2, heads, -1)).unbind(2)
        by_head = query.unflatten(-1, (heads, -1))
        weights = softmax(torch.einsum("bhwgd,bngd->bhwgn", by_head, key) / by_head.shape[-1] ** 0.5)
        return operator.output(torch.einsum("bhwgn,bngd->bhwgd", weights, value).flatten(3))

    if given.depth == 1:
        return attention(x)
    outputs: list[Tensor] = []
    for _ in range(given.depth):
        outputs.append(F.silu(attention(x + sum(outputs))))
    return outputs[-1]


def slide(operator: nn.Module, x: Tensor, given: SimpleNamespace) -> Tensor:
    """Both paths one after the other: the fixed shifts, and the learned convolution."""
    width, taps = x.shape[-1] // operator.heads, given.kernel**2
    query, key, value = operator.query_key_value(x).unflatten(-1, (operator.heads, 3, width)).unbind(-2)

    def gathered(source: Tensor) -> Tensor:  # (B, H, W, G, d) → (B, H, W, G, d, K²)
        near, found = neighbors(source.flatten(3), given.kernel).unflatten(-1, (operator.heads, width)), []
        for path in (operator.shift, operator.deform):
            weight, bias = path.weight.view(width, taps, taps), path.bias.view(width, taps)
            found.append(torch.einsum("bhwsgd,dts->bhwgdt", near, weight) + bias)
        return found[0] + found[1]

    keys = gathered(key) + operator.bias_table[:, None, :]
    attention = softmax(torch.einsum("bhwgd,bhwgdt->bhwgt", query * width**-0.5, keys))
    return operator.output(torch.einsum("bhwgt,bhwgdt->bhwgd", attention, gathered(value)).flatten(3))


def san_network(layers: nn.Sequential, x: Tensor) -> Tensor:
    first, _, reduce, second, _, expand = layers
    return expand(batch_norm(reduce(batch_norm(x, first).relu()), second).relu())


def san_pairwise(operator: nn.Module, x: Tensor, given: SimpleNamespace) -> Tensor:
    _, height, width, _ = x.shape
    places = [
        [(2 * c / (width - 1) - 1, 2 * r / (height - 1) - 1) for c in range(width)] for r in range(height)
    ]
    place = operator.position(torch.tensor(places, dtype=x.dtype)).expand(len(x), -1, -1, -1)
    own = torch.cat([operator.centre(x), place], -1)
    others = neighbors(torch.cat([operator.neighbor(x), place], -1), given.kernel, reflected=True)
    weights = softmax(san_network(operator.weights, own[:, :, :, None] - others), dim=-2)
    return san_sum(operator, x, weights, given)


def san_patchwise(operator: nn.Module, x: Tensor, given: SimpleNamespace) -> Tensor:
    others = neighbors(operator.neighbor(x), given.kernel, reflected=True).transpose(-1, -2).flatten(-2)
    weights = san_network(operator.weights, torch.cat([operator.centre(x), others], -1))
    return san_sum(operator, x, weights.unflatten(-1, (-1, given.kernel**2)).transpose(-1, -2), given)


def san_sum(operator: nn.Module, x: Tensor, weights: Tensor, given: SimpleNamespace) -> Tensor:
    """Weights (B, H, W, K², C/share): channel c has filter c mod (C/share)."""
    values = neighbors(operator.value(x), given.kernel, reflected=True)
    filters = x.shape[-1] // given.share
    y = [(weights[..., c % filters] * values[..., c]).sum(-1) for c in range(x.shape[-1])]
    return block_means(torch.stack(y, -1), given.stride)
