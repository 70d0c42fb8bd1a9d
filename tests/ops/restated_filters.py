"""Operators whose filters are static or made of the image, written from their formulas tap by tap."""

from __future__ import annotations

import itertools
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
from torch import Tensor, nn


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
