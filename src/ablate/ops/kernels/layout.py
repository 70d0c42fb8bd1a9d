"""Channels-last maps and heads."""

from torch import Tensor


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, H, W, C) → (B, G, L, C/G); channels belong to heads in contiguous blocks."""
    return x.flatten(1, 2).unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor, height: int, width: int) -> Tensor:
    """(B, G, L, C/G) → (B, H, W, C)."""
    return x.transpose(1, 2).flatten(2).unflatten(1, (height, width)).contiguous()
