"""UPerNet (Xiao et al., 2018, arXiv:1807.10221) and the auxiliary FCN head, as in Swin's and ELSA's code.

Every layer has a gradient that repeats exactly on CUDA: pooling is a product with a matrix, because PyTorch's
adaptive pooling has no such gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def unit(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def enlarged(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps to (height, width), linearly between the centres of positions."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def pooled(x: Tensor, side: int) -> Tensor:
    """Mean over side × side regions, those of `adaptive_avg_pool2d`: (B, C, H, W) → (B, C, side, side)."""
    rows, columns = (_shares(length, side, x) for length in x.shape[-2:])
    return rows @ x @ columns.T


def _shares(length: int, parts: int, like: Tensor) -> Tensor:
    """(parts, length): the share of each position in each part; made on the device, and kept nowhere."""
    part = torch.arange(parts, device=like.device)[:, None]
    position = torch.arange(length, device=like.device)
    inside = (position >= part * length // parts) & (position < -(-(part + 1) * length // parts))
    return (inside / inside.sum(1, keepdim=True)).to(like.dtype)


class UPerNet(nn.Module):
    """Pyramid pooling of the coarsest map, a top-down path over the others, and all of them fused.

    Args:
        widths: channels of the maps, the finest first.
        channels: of every layer of the head.
        pools: sides that the coarsest map is pooled to.
        classes: channels of the output.
        dropout: of whole channels before the classifier.
    """

    def __init__(
        self, widths: Sequence[int], channels: int, pools: Sequence[int], classes: int, dropout: float
    ) -> None:
        super().__init__()
        *finer, coarsest = widths
        self.pools = tuple(pools)
        self.pooling = nn.ModuleList(unit(coarsest, channels, 1) for _ in pools)
        self.bottleneck = unit(coarsest + len(pools) * channels, channels, 3)
        self.laterals = nn.ModuleList(unit(width, channels, 1) for width in finer)
        self.smoothing = nn.ModuleList(unit(channels, channels, 3) for _ in finer)
        self.fusion = unit(len(widths) * channels, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, C_i, H_i, W_i), the finest first → logits (B, classes, H_0, W_0)."""
        *finer, coarsest = maps
        context = [
            enlarged(layer(pooled(coarsest, side)), coarsest.shape[-2:])
            for side, layer in zip(self.pools, self.pooling, strict=True)
        ]
        path = [self.bottleneck(torch.cat([coarsest, *context], 1))]
        for lateral, one in zip(reversed(self.laterals), reversed(finer), strict=True):
            path.insert(0, lateral(one) + enlarged(path[0], one.shape[-2:]))
        smooth = [layer(one) for layer, one in zip(self.smoothing, path[:-1], strict=True)]
        alike = [enlarged(one, path[0].shape[-2:]) for one in [*smooth, path[-1]]]
        logits: Tensor = self.classifier(self.dropout(self.fusion(torch.cat(alike, 1))))
        return logits


class FCN(nn.Module):
    """One convolution and a classifier (Long et al., 2015), on one map: the auxiliary head."""

    def __init__(self, width: int, channels: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.layer = unit(width, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) → logits (B, classes, H, W)."""
        logits: Tensor = self.classifier(self.dropout(self.layer(x)))
        return logits
