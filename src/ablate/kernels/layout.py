"""Channels-last maps: heads and pooling."""

from typing import Literal

import torch
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


def pool_cells(x: Tensor, grid: tuple[int, int], form: Literal["mean", "amax"] = "mean") -> Tensor:
    """(B, H, W, C) → (B, rows, columns, C): mean or maximum of each cell of a grid.

    The cells are those of adaptive pooling and overlap where the grid does not divide the map. PyTorch's own
    adaptive pooling has no deterministic gradient on CUDA.
    """
    for dim, count in enumerate(grid, start=1):
        length = x.shape[dim]
        if length % count == 0:
            x = getattr(x.unflatten(dim, (count, length // count)), form)(dim + 1)
            continue
        ends = [(cell * length // count, -(-(cell + 1) * length // count)) for cell in range(count)]
        parts = [getattr(x.narrow(dim, first, end - first), form)(dim) for first, end in ends]
        x = torch.stack(parts, dim)
    return x
