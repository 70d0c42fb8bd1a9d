"""Attention over mixed neighbors as in its paper: convolutions gather K² maps of keys and of values."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ablate.kernels.slide_attention.inputs import Inputs


def attention(inputs: Inputs, kernel: int) -> Tensor:
    """(B, H, W, C) queries, keys and values → (B, H, W, C); see `slide_attention`."""
    query, key, value, mix, own, table = inputs
    heads = table.shape[0]
    query, key, value = (_by_head(x, heads) for x in (query, key, value))  # (B · heads, d, H, W)
    keys, values = _mixed(torch.cat([key, value]), mix, own, kernel)
    weights = _logits(query, keys, table).softmax(1).to(values.dtype)
    return _on_map(torch.einsum("nthw,ndthw->ndhw", weights, values), heads)


def backward(grad: Tensor, inputs: Inputs, kernel: int) -> tuple[Tensor, ...]:
    """Gradients of the six operands, written out: there is no autograd inside of an operator."""
    query, key, value, mix, own, table = inputs
    heads, taps = table.shape[0], kernel * kernel
    grad, query, key, value = (_by_head(x, heads) for x in (grad, query, key, value))
    both = torch.cat([key, value])
    keys, values = _mixed(both, mix, own, kernel)
    logits = _logits(query, keys, table)
    weights = logits.softmax(1)
    pull = torch.einsum("ndhw,ndthw->nthw", grad, values).to(weights.dtype)
    of_logits = weights * (pull - (weights * pull).sum(1, keepdim=True))
    of_bias = of_logits * query.sum(1, keepdim=True)  # of b, a number for each head and tap
    of_query = torch.einsum("nthw,ndthw->ndhw", of_logits.to(keys.dtype), keys)
    of_query = of_query + (of_logits * _by_tap(table, logits)).sum(1, keepdim=True)
    of_keys = query[:, :, None] * of_logits.to(query.dtype)[:, None]  # (B · heads, d, K², H, W)
    of_values = grad[:, :, None] * weights.to(grad.dtype)[:, None]
    of_both, of_weight, of_own = torch.ops.aten.convolution_backward(
        torch.cat([of_keys, of_values]).flatten(1, 2),
        both,
        _weight(mix, kernel, both),
        [mix.shape[0] * taps],
        *([1, 1], [kernel // 2] * 2, [1, 1], False, [0, 0], mix.shape[0], [True, True, True]),
    )
    of_key, of_value = of_both.unflatten(0, (2, key.shape[0])).unbind()
    maps = [_on_map(x, heads).to(grad.dtype) for x in (of_query, of_key, of_value)]
    of_query, of_key, of_value = (x.clone(memory_format=torch.contiguous_format) for x in maps)
    return (
        *(of_query, of_key, of_value),
        of_weight.view(mix.shape).to(mix.dtype),
        of_own.view(own.shape).to(own.dtype),
        of_bias.unflatten(0, (of_bias.shape[0] // heads, heads)).sum((0, 3, 4)).to(table.dtype),
    )


def _mixed(both: Tensor, mix: Tensor, own: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    """Keys above values (2 · B · heads, d, H, W) → the K² mixed ones of each, (B · heads, d, K², H, W)."""
    weight, channels = _weight(mix, kernel, both), mix.shape[0]
    found = F.conv2d(both, weight, own.flatten().to(both.dtype), padding=kernel // 2, groups=channels)
    by_tap = found.unflatten(1, (channels, kernel * kernel))
    keys, values = by_tap.unflatten(0, (2, both.shape[0] // 2)).unbind()
    return keys, values


def _weight(mix: Tensor, kernel: int, like: Tensor) -> Tensor:
    return mix.reshape(-1, 1, kernel, kernel).to(like.dtype)


def _logits(query: Tensor, keys: Tensor, table: Tensor) -> Tensor:
    """q·(k + b) = q·k + b Σ_c q_c, without a copy of the keys: (B · heads, K², H, W)."""
    products = torch.einsum("ndhw,ndthw->nthw", query, keys)
    return products + _by_tap(table, products) * query.sum(1, keepdim=True)


def _by_tap(table: Tensor, logits: Tensor) -> Tensor:
    """(heads, K²) → (B · heads, K², 1, 1)."""
    return table.repeat(logits.shape[0] // table.shape[0], 1)[:, :, None, None]


def _by_head(x: Tensor, heads: int) -> Tensor:
    """(B, H, W, C) → (B · heads, d, H, W)."""
    return x.unflatten(-1, (heads, -1)).permute(0, 3, 4, 1, 2).flatten(0, 1)


def _on_map(x: Tensor, heads: int) -> Tensor:
    """(B · heads, d, H, W) → (B, H, W, C)."""
    return x.unflatten(0, (x.shape[0] // heads, heads)).permute(0, 3, 4, 1, 2).flatten(3)
