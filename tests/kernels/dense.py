"""Neighbourhood attention with all of its scores in memory: what the fused one is compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from ablate.ops.kernels.geometry import neighborhoods
from ablate.ops.kernels.sums import reference


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    heads: int,
    kernel: int,
    dilation: int,
    border: str,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """(B, H, W, C) and the logarithms of the sums (B, H, W, G); bias is (G, offsets²)."""
    height, width = query.shape[1:3]
    sliding = (kernel, dilation, border, 1)
    found = neighborhoods(height, width, *sliding, query.device)
    offset = found.offset.unflatten(0, (height, width))
    score = scale * reference.scores(query, key, None, heads, *sliding) + bias[:, offset].movedim(0, 2)
    if border == "mask":
        outside = ~found.valid.unflatten(0, (height, width))
        score = score.masked_fill(outside[:, :, None], -torch.inf)
    return reference.aggregate(value, score.softmax(-1), None, None, *sliding), score.logsumexp(-1)
