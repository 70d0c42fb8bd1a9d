"""Attention over mixed neighbours as in its paper: convolutions gather K² maps of keys and of values."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attention(
    query: Tensor, key: Tensor, value: Tensor, mix: Tensor, own: Tensor, table: Tensor, kernel: int
) -> Tensor:
    """(B, H, W, C) queries, keys and values → (B, H, W, C); see `mixed_attention`."""
    (batch, height, width, _), heads = query.shape, len(table)
    query, key, value = (_by_head(x, heads) for x in (query, key, value))  # (B · heads, d, H, W)
    taps, channels = kernel * kernel, key.shape[1]
    weight, bias = mix.reshape(channels * taps, 1, kernel, kernel).to(key.dtype), own.flatten().to(key.dtype)
    both = F.conv2d(torch.cat([key, value]), weight, bias, padding=kernel // 2, groups=channels)
    keys, values = both.unflatten(1, (channels, taps)).chunk(2)  # (B · heads, d, K², H, W)
    # q·(k + b) = q·k + b Σ_c q_c, without a copy of the keys
    by_tap = table.repeat(batch, 1)[:, :, None, None]
    logits = torch.einsum("ndhw,ndthw->nthw", query, keys) + by_tap * query.sum(1, keepdim=True)
    y = torch.einsum("nthw,ndthw->ndhw", logits.softmax(1).to(values.dtype), values)
    return y.unflatten(0, (batch, heads)).permute(0, 3, 4, 1, 2).reshape(batch, height, width, -1)


def backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mix: Tensor,
    own: Tensor,
    table: Tensor,
    kernel: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the six operands."""
    with torch.enable_grad():
        given = [x.detach().requires_grad_() for x in (query, key, value, mix, own, table)]
        query, key, value, mix, own, table = given
        y = attention(query, key, value, mix, own, table, kernel)
        of_query, of_key, of_value, of_mix, of_own, of_table = torch.autograd.grad(y, given, grad)
    return of_query, of_key, of_value, of_mix, of_own, of_table


def _by_head(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).permute(0, 3, 4, 1, 2).flatten(0, 1)
