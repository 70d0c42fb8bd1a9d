"""Channels-last maps: heads and pooling."""

import torch.nn.functional as F
from torch import Tensor


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, H, W, C) → (B, G, L, C/G); channels belong to heads in contiguous blocks."""
    return x.flatten(1, 2).unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor, height: int, width: int) -> Tensor:
    """(B, G, L, C/G) → (B, H, W, C)."""
    return x.transpose(1, 2).flatten(2).unflatten(1, (height, width)).contiguous()


def average_pool(x: Tensor, stride: int) -> Tensor:
    """(B, H, W, C) → (B, ⌈H/stride⌉, ⌈W/stride⌉, C): means over blocks, or what the edge leaves of one."""
    if stride == 1:
        return x
    images = x.permute(0, 3, 1, 2)
    pooled = F.avg_pool2d(images, stride, stride, ceil_mode=True, count_include_pad=False)
    return pooled.permute(0, 2, 3, 1)
