"""Operators of their own, each written a second time from its formula, tap by tap."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
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
    windows,
)
from tests.ops.small import OWN, WIDTHS, build, close, drawn, image, small
from torch import Tensor, nn

from ablate import ops


def softmax(logits: Tensor, dim: int = -1) -> Tensor:
    positive = (logits - logits.amax(dim, keepdim=True)).exp()
    return positive / positive.sum(dim, keepdim=True)


# Convolutions, and kernels mixed for every image


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1) -> Tensor:
    """Σ_Δ Σ_c' W[c, c', Δ] · x_{i+Δ}[c'] + b[c] over the channels c' of the group of c."""
    groups = x.shape[-1] // weight.shape[1]
    taps = neighbors(x, weight.shape[-1], stride=stride).unflatten(-1, (groups, -1))
    y = torch.einsum("bhwtgc,goct->bhwgo", taps, weight.flatten(2).unflatten(0, (groups, -1))).flatten(-2)
    return y if bias is None else y + bias


def conv(operator: nn.Module, x: Tensor, given: SimpleNamespace) -> Tensor:
    return convolved(x, operator.convolution.weight, operator.convolution.bias, given.stride)


def dilated_reparam(operator: nn.Module, x: Tensor, given: SimpleNamespace) -> Tensor:
    """Branch by branch, in evaluation too."""
    y = 0
    for convolution, norm in operator.sum.parts():
        (kernel, _), (dilation, _) = convolution.kernel_size, convolution.dilation
        taps = neighbors(x, kernel, dilation=dilation, stride=given.stride)
        y = y + batch_norm(torch.einsum("bhwtc,ct->bhwc", taps, convolution.weight.flatten(1)), norm)
    return y


def mixture(operator: nn.Module, x: Tensor, given: SimpleNamespace, shares: Tensor) -> Tensor:
    kernels, found = operator.mixture, []
    for sample, share in zip(x, shares, strict=True):
        weight = sum(part * kernel for part, kernel in zip(share, kernels.weight, strict=True))
        bias = None if kernels.bias is None else share @ kernels.bias
        found.append(convolved(sample[None], weight, bias, given.stride))
    return torch.cat(found)


def condconv(operator: nn.Module, x: Tensor, given: SimpleNamespace) -> Tensor:
    return mixture(operator, x, given, 1 / (1 + (-operator.router(x.mean((1, 2)))).exp()))


def dynamic_conv(operator: nn.Module, x: Tensor, given: SimpleNamespace) -> Tensor:
    hidden = (x.mean((1, 2)) @ operator.reduce.weight.T).relu()
    return mixture(operator, x, given, softmax(operator.expand(hidden) / given.temperature))


# Filters made of the image


def ddf(operator: nn.Module, x: Tensor, given: SimpleNamespace) -> Tensor:
    def normal(logits: Tensor) -> Tensor:
        by_tap = logits.unflatten(-1, (-1, given.kernel**2))
        return (by_tap - by_tap.mean(-1, keepdim=True)) / (by_tap.std(-1, keepdim=True) + 1e-10)

    spatial = normal(operator.spatial(x)) * 2**0.5 / given.kernel
    channel = normal(operator.expand(operator.reduce(x.mean((1, 2))).relu())) * operator.scale

    def filters(position: Position, met: list[Tap]) -> Tensor:
        by_channel = at(spatial, position).repeat_interleave(x.shape[-1] // spatial.shape[3], 1)
        return by_channel * channel if given.combination == "mul" else by_channel + channel

    return summed(x, sliding(*x.shape[1:3], given.kernel, stride=given.stride), filters)


def focal(operator: nn.Module, x: Tensor, given: SimpleNamespace) -> Tensor:
    channels, levels = x.shape[-1], given.levels
    query, context, gates = operator.query_context_gates(x).split([channels, channels, levels + 1], -1)
    summed = torch.zeros_like(x)
    for level, convolution in enumerate(operator.contexts):
        assert convolution.weight.shape[-1] == given.kernel + given.growth * level
        context = F.gelu(convolved(context, convolution.weight, None))
        summed = summed + gates[..., level, None] * context
    summed = summed + gates[..., levels, None] * F.gelu(context.mean((1, 2)))[:, None, None]
    modulated = query * operator.modulator(summed / (levels + 1 if given.divide else 1))
    if given.norm:
        centred = modulated - modulated.mean(-1, keepdim=True)
        modulated = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        modulated = modulated * operator.norm.weight + operator.norm.bias
    return operator.output(modulated)


def sampled(operator: nn.Module, values: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
    """Every sample from every position of the map, by the hat function of their distance."""
    _, height, width, _ = values.shape
    heads, kernel, rows, columns = operator.heads, operator.kernel, torch.arange(height), torch.arange(width)
    by_head, found = values.unflatten(-1, (heads, -1)), torch.zeros_like(values)
    for y, x in itertools.product(range(height), range(width)):
        for tap, (down, right) in enumerate(itertools.product(range(kernel), repeat=2)):
            moved = offsets[:, y, x, :, tap]  # (B, G, 2)
            row = y + operator.scale * (down - kernel // 2 + moved[..., 0, None])
            column = x + operator.scale * (right - kernel // 2 + moved[..., 1, None])
            hat = ((1 - (row - rows).abs()).relu(), (1 - (column - columns).abs()).relu())
            sample = torch.einsum("bgh,bgw,bhwgd->bgd", *hat, by_head)
            found[:, y, x] += (weights[:, y, x, :, tap, None] * sample).flatten(1)
    return found


def centred(operator: nn.Module, features: Tensor, y: Tensor, values: Tensor) -> Tensor:
    if operator.centre is None:
        return y
    share = torch.sigmoid(operator.centre.gate(features))[..., None]
    y, values = (t.unflatten(-1, (operator.heads, -1)) for t in (y, values))
    return ((1 - share) * y + share * values).flatten(-2)


def dcnv3(operator: nn.Module, x: Tensor, given: SimpleNamespace) -> Tensor:
    surround = convolved(x, operator.surround.weight, operator.surround.bias)
    features = F.gelu(operator.norm(surround))
    weights = softmax(operator.weights(features).unflatten(-1, (operator.heads, -1)))
    offsets = operator.offsets(features).unflatten(-1, (operator.heads, given.kernel**2, 2))
    y = sampled(operator, operator.value(x), weights, offsets)
    return operator.output(centred(operator, features, y, operator.value(x)))


def dcnv4(operator: nn.Module, x: Tensor, given: SimpleNamespace) -> Tensor:
    taps, features = given.kernel**2, x
    if given.depthwise:
        features = convolved(x, operator.surround.weight, operator.surround.bias)
    rows, found = operator.offsets_weights(features), []
    for head in range(operator.heads):
        start = 3 * taps * head
        offsets = rows[..., start : start + 2 * taps].unflatten(-1, (taps, 2))
        found.append((offsets, rows[..., start + 2 * taps : start + 3 * taps]))
    offsets, weights = (torch.stack(part, 3) for part in zip(*found, strict=True))
    y = sampled(operator, operator.value(x), weights, offsets)
    return operator.output(centred(operator, y, y, operator.value(x)))


def carafe(operator: nn.Module, x: Tensor, given: SimpleNamespace) -> Tensor:
    encode = operator.encode
    logits = convolved(operator.compress(x), encode.weight, encode.bias)
    masks = softmax(logits.unflatten(-1, (-1, given.kernel**2)))
    taps = sliding(*x.shape[1:3], given.kernel, stride=given.stride)
    return summed(x, taps, lambda position, _: at(masks, position))


def attn_conv(operator: nn.Module, x: Tensor, given: SimpleNamespace) -> Tensor:
    dim, low = x.shape[-1], int(2 * given.pooled_share)  # of the 2 heads
    width, parts = dim // 2, []
    if given.branches != "both":
        low = 2 if given.branches == "pooled" else 0
    if low < 2:
        conv = operator.convolution
        taps = neighbors(conv.query_key_value(x), given.kernel)
        query, key, value = (
            torch.einsum("bhwtc,ct->bhwc", taps, conv.look.weight.flatten(1)) + conv.look.bias
        ).chunk(3, -1)
        hidden = conv.gate.mix(query * key)
        gain = conv.gate.expand(hidden / (1 + (-hidden).exp())) * width**-0.5
        parts.append(value * (1 - 2 / (1 + (2 * gain).exp())))
    if low:
        other, side = operator.attention, -(-min(x.shape[1:3]) // given.grid)
        query = other.query(x).flatten(1, 2).unflatten(-1, (low, width))
        pooled = other.key_value(block_means(x, side)).flatten(1, 2)
        key, value = pooled.unflatten(-1, (2, low, width)).unbind(2)
        weights = softmax(torch.einsum("bigd,bpgd->bgip", query, key) * width**-0.5)
        parts.append(torch.einsum("bgip,bpgd->bigd", weights, value).flatten(2).unflatten(1, x.shape[1:3]))
    return operator.output(torch.cat(parts, -1))


def manhattan(operator: nn.Module, x: Tensor, given: SimpleNamespace) -> Tensor:
    height, width, heads = *x.shape[1:3], 2
    value = operator.value(x)
    taps = neighbors(value, 5)
    local = torch.einsum("bhwtc,ct->bhwc", taps, operator.enhance.weight.flatten(1)) + operator.enhance.bias
    query, key, value = (
        y.flatten(1, 2).unflatten(-1, (heads, -1)) for y in (operator.query(x), operator.key(x), value)
    )
    if given.rotation:  # as complex numbers, channel 2p + i · channel 2p + 1
        pairs = query.shape[-1] // 2
        theta = torch.tensor([10000 ** -(p / max(pairs - 1, 1)) for p in range(pairs)], dtype=x.dtype)
        angle = torch.arange(height * width)[:, None, None] * theta
        turn = torch.polar(torch.ones_like(angle), angle)
        query, key = (
            torch.view_as_real(torch.view_as_complex(y.unflatten(-1, (-1, 2)).contiguous()) * turn).flatten(
                -2
            )
            for y in (query, key)
        )
    logits = torch.einsum("bigd,bjgd->bgij", query, key) * query.shape[-1] ** -0.5
    head = torch.arange(heads)
    gamma = (1 - 2 ** (-given.decay_initial - given.decay_range * head / heads)).to(x.dtype)[:, None, None]
    row, column = torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)
    down, right = (row[:, None] - row).abs(), (column[:, None] - column).abs()

    def attention(inside: Tensor, distance: Tensor) -> Tensor:
        decayed = logits + distance * gamma.log()
        return softmax(decayed.masked_fill(~inside, float("-inf")))

    if given.decomposed:
        filters = attention(right == 0, down) @ attention(down == 0, right)
    else:
        filters = attention(down >= 0, down + right)
    y = torch.einsum("bgij,bjgd->bigd", filters, value).flatten(2).unflatten(1, (height, width))
    return operator.output(y + local)


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


# LESA


def lesa(operator: nn.Module, x: Tensor, given: SimpleNamespace) -> Tensor:
    binary = None
    if given.binary == "attention":
        meet = torch.ones(1, x[0, ..., 0].numel(), x[0, ..., 0].numel(), dtype=torch.bool)
        binary = lesa_binary(operator.binary, x, meet, given.positions)
    return lesa_fused(operator, x, binary, given)


def lesa_window(operator: nn.Module, x: Tensor, given: SimpleNamespace) -> Tensor:
    """Every window is an image of the binary term, of which only one side of a seam meets."""
    batch, height, width, _ = x.shape
    size, binary = given.window, None
    if given.binary == "attention":
        half = size // 2 if given.shift == "alternate" and given.index % 2 else 0
        shift = (half * (height > size), half * (width > size))
        filled = F.pad(x.roll((-shift[0], -shift[1]), (1, 2)), (0, 0, 0, -width % size, 0, -height % size))
        tops, lefts = range(0, filled.shape[1], size), range(0, filled.shape[2], size)
        corners = [(top, left) for top in tops for left in lefts]
        sides = {
            position: number
            for number, group in enumerate(windows(*filled.shape[1:3], size, shift))
            for position in group
        }
        side = torch.tensor(
            [[sides[top + y, left + z] for y in range(size) for z in range(size)] for top, left in corners]
        )
        tiles = torch.cat([filled[:, top : top + size, left : left + size] for top, left in corners])
        meet = (side[:, :, None] == side[:, None, :]).repeat_interleave(batch, 0)
        found = torch.zeros_like(filled)
        parts = lesa_binary(operator.binary, tiles, meet, "two_dimensional").unflatten(0, (-1, batch))
        for (top, left), part in zip(corners, parts, strict=True):
            found[:, top : top + size, left : left + size] = part
        binary = found[:, :height, :width].roll(shift, (1, 2))
    return lesa_fused(operator, x, binary, given)


def lesa_binary(term: nn.Module, x: Tensor, meet: Tensor, positions: str) -> Tensor:
    _, height, width, channels = x.shape
    heads = term.heads
    half = channels // heads // 2
    length, place = height * width, [(y, z) for y in range(height) for z in range(width)]
    projected = batch_norm(x.flatten(1, 2) @ term.query_key_value.weight.T, term.norm)
    query, key, value = projected.unflatten(-1, (heads, -1)).split([half, half, 2 * half], -1)
    content = torch.einsum("nigc,njgc->ngij", query, key)
    if positions == "decomposed":
        between = torch.stack(  # r of j − i
            [
                term.position.rows[place[j][0] - place[i][0] + height - 1]
                + term.position.columns[place[j][1] - place[i][1] + width - 1]
                for i in range(length)
                for j in range(length)
            ]
        ).unflatten(0, (length, length))
        terms = [content, torch.einsum("nigc,ijc->ngij", query, between)]
    else:

        def entry(i: int, j: int) -> int:  # of i − j in the table
            if positions == "flattened":
                return i - j + length - 1
            (y, z), (row, column) = place[i], place[j]
            return (y - row + height - 1) * (2 * width - 1) + z - column + width - 1

        entries = torch.tensor([[entry(i, j) for j in range(length)] for i in range(length)])
        of_query, of_key, of_value = term.position.relative[:, entries].split([half, half, 2 * half])
        terms = [
            content,
            torch.einsum("nigc,cij->ngij", query, of_query),
            torch.einsum("njgc,cji->ngij", key, of_key),
        ]
    normal = batch_norm(torch.cat(terms, 1), term.similarity_norm, dim=1)
    logits = normal.unflatten(1, (-1, heads)).sum(1).masked_fill(~meet[:, None], float("-inf"))
    attention = softmax(logits)
    outputs = [torch.einsum("ngij,njgc->nigc", attention, value)]
    if positions != "decomposed":
        outputs.append(torch.einsum("ngij,cij->nigc", attention, of_value))
    y = batch_norm(torch.stack(outputs, -1).flatten(2), term.output_norm)
    return y.unflatten(-1, (-1, len(outputs))).sum(-1).unflatten(1, (height, width))


def lesa_fused(operator: nn.Module, x: Tensor, binary: Tensor | None, given: SimpleNamespace) -> Tensor:
    if given.unary == "none":
        return block_means(binary, given.stride)
    y = convolved(x, operator.unary.spatial.weight, None)
    if operator.binary is None or operator.binary.heads > 1:
        y = y @ operator.unary.mix.weight[:, :, 0, 0].T
    y = batch_norm(y, operator.unary.norm)
    if binary is None:
        return block_means(y, given.stride)
    if given.fusion == "gated":
        _, reduce, first, _, expand, second, _ = operator.fusion.gate
        hidden = batch_norm(torch.cat([y, binary], -1).relu() @ reduce.weight[:, :, 0, 0].T, first).relu()
        binary = torch.sigmoid(batch_norm(hidden @ expand.weight[:, :, 0, 0].T, second)) * binary
    if given.fusion == "static":
        binary = torch.sigmoid(operator.fusion.gate) * binary
    return block_means(y + binary, given.stride)


LESA = [{"fusion": "sum"}, {"fusion": "static"}, {"unary": "none"}, {"binary": "none"}, {"heads": "1"}]
# Every operator of its own: its restatement, and the settings beside its defaults to compare it at.
RESTATED: dict[str, tuple[Callable[..., Tensor], list[dict[str, object]]]] = {
    "aggregated": (aggregated, [{"reduction": 1, "heads": "C"}, {"kernel": 5, "reduction": 3}]),
    "attn_conv": (
        attn_conv,
        [{"branches": "attn_conv", "kernel": 5}, {"branches": "pooled", "grid": 2}, {"grid": 1}],
    ),
    "carafe": (carafe, [{"heads": "1x", "kernel": 5}, {"encoder_kernel": 1, "compressed": 3}]),
    "condconv": (condconv, [{"groups": "1x", "experts": 3, "bias": False}]),
    "contmix": (contmix, [{"pooled": 3, "small_kernel": 5}, {"kernel": 7, "heads": "1"}]),
    "conv": (conv, [{"groups": "1x", "kernel": 5}, {"groups": "C", "bias": False}]),
    "csa": (csa, [{"grid": 1}, {"heads": "C", "kernel": 5, "grid": 3}]),
    "ddf": (ddf, [{"combination": "add", "heads": "1x"}, {"heads": "C", "kernel": 5}]),
    "dcnv3": (dcnv3, [{"centre_scale": True, "feature_kernel": 5}, {"kernel": 5, "offset_scale": 0.6}]),
    "dcnv4": (dcnv4, [{"depthwise": True, "centre_scale": True}, {"bias": True, "offset_scale": 2.0}]),
    "dilated_reparam": (dilated_reparam, [{"kernel": 5}, {"kernel": 3, "branches": "none"}]),
    "dynamic_conv": (dynamic_conv, [{"temperature": 0.7, "squeeze": 0.5, "groups": "C"}]),
    "focal": (focal, [{"levels": 3, "divide": True}, {"levels": 1, "growth": 4, "kernel": 5, "norm": True}]),
    "lesa": (lesa, [{"positions": "two_dimensional"}, {"positions": "decomposed"}, *LESA]),
    "lesa_qr": (lesa, [{"positions": "flattened"}, {"fusion": "sum"}]),
    "lesa_window": (lesa_window, [{"shift": "none"}, {"window": 4}, *LESA]),
    "manhattan": (
        manhattan,
        [
            {"decomposed": False, "decay_range": 6.0},
            {"rotation": False, "decay_initial": 1.0},
        ],
    ),
    "outlook": (outlook, [{"value_bias": True, "grid": 1}, {"heads": "C", "kernel": 5, "grid": 3}]),
    "plg": (plg, [{"window": 4, "tokens": 2}, {"heads": "C", "tokens": 9}]),
    "rasa": (rasa, [{"reduction": 1, "depth": 3, "heads": "C"}, {"depth": 1, "rates": [2], "kernel": 5}]),
    "san_pairwise": (san_pairwise, [{"share": 2, "reduction": 1}, {"share": 1, "kernel": 5}]),
    "san_patchwise": (san_patchwise, [{"share": 2, "reduction": 1}, {"share": 1, "kernel": 5}]),
    "sasa": (sasa, [{"border": "mask", "dilation": 2}, {"border": "inside"}, {"kernel": 5}]),
    "slide": (slide, [{"heads": "1", "kernel": 5}]),
}
CASES = [
    pytest.param(name, settings, id=" ".join([name, *(f"{key}={value}" for key, value in settings.items())]))
    for name, (_, variants) in RESTATED.items()
    for settings in [{}, *variants]
]


def test_every_operator_of_its_own_is_restated() -> None:
    assert sorted(RESTATED) == OWN


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_is_its_formula(name: str, settings: dict[str, object]) -> None:
    restatement, _ = RESTATED[name]
    chosen = {**ops.spec(name).defaults, **small(name), **settings}
    for size in ((5, 7), (4, 4)):
        x = image(*size, dim=WIDTHS.get(name, 8))
        for stride in ops.spec(name).strides:
            operator = drawn(build(name, resolution=size, stride=stride, index=1, **settings))
            given = SimpleNamespace(**{**chosen, "stride": stride, "index": 1})
            for training in (True, False):
                close(operator.train(training)(x), restatement(operator, x, given))
