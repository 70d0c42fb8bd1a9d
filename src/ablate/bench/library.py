"""The nearest that PyTorch itself has: depthwise convolution, and attention in windows.

`heads` comes first everywhere; maps are (B, H, W, C), and windows of K×K tile them.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ablate.ops.axes.regions import pair_offsets


def convolution(heads: int, kernel: int, values: Tensor, weight: Tensor) -> Tensor:
    """Depthwise, weight (C, 1, K, K); the map stays channels last, as cuDNN and oneDNN take it too."""
    images = values.permute(0, 3, 1, 2)
    return F.conv2d(images, weight, padding=kernel // 2, groups=len(weight)).permute(0, 2, 3, 1)


def window_scores(heads: int, kernel: int, query: Tensor, key: Tensor) -> Tensor:
    """Products of all pairs in windows of K×K: (B · windows, heads, K², K²), as many as K² taps make."""
    return _windows(query, heads, kernel) @ _windows(key, heads, kernel).transpose(-1, -2)


def window_attention(
    heads: int, kernel: int, query: Tensor, key: Tensor, value: Tensor, bias: Tensor
) -> Tensor:
    """Swin's (Liu et al., 2021), from partition to its reverse; bias (heads, (2K − 1)²)."""
    batch, height, width, channels = query.shape
    query, key, value = (_windows(x, heads, kernel) for x in (query, key, value))
    mask = bias[:, pair_offsets(kernel, kernel, bias.device)][None]
    y = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0)  # as `_windows`
    y = y.view(batch, height // kernel, width // kernel, heads, kernel, kernel, channels // heads)
    return y.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, height, width, channels)


def _windows(x: Tensor, heads: int, kernel: int) -> Tensor:
    """(B, H, W, C) → (B · windows, heads, K², C/heads)."""
    batch, height, width, channels = x.shape
    tiles = x.view(batch, height // kernel, kernel, width // kernel, kernel, heads, channels // heads)
    return tiles.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, heads, kernel * kernel, channels // heads)
