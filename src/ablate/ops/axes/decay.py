"""Static decay with the Manhattan distance: the term `decay` and the norm `softmax_decay` (RMT)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ablate.kernels.geometry import constant
from ablate.ops.axes.regions import Region

INITIAL, RANGE = 2.0, 4.0  # of RMT's smallest networks


@constant
def log_decay(heads: int, initial: float, spread: float, device: torch.device) -> Tensor:
    """ln γ_h of each head in float64, γ_h = 1 − 2^(−initial − spread·h/heads): (heads,)."""
    head = torch.arange(heads, dtype=torch.float64)
    return torch.log1p(-(2 ** (-initial - spread * head / heads))).to(device)


@constant
def distances(rows: int, columns: int, step: int, device: torch.device) -> Tensor:
    """Manhattan distance of each entry of a table of offsets, in positions and float64: (rows · columns,)."""
    row = (torch.arange(rows, dtype=torch.float64) - rows // 2).abs()
    column = (torch.arange(columns, dtype=torch.float64) - columns // 2).abs()
    return (step * (row[:, None] + column[None])).flatten().to(device)


def decay_table(heads: int, region: Region, like: Tensor) -> Tensor:
    """ln γ_h · Manhattan distance, (heads, offsets), with the device and dtype of `like`."""
    rows, columns = region.sides
    distance = distances(rows, columns, region.dilation, like.device)
    return torch.outer(log_decay(heads, INITIAL, RANGE, like.device), distance).to(like.dtype)


class SoftmaxDecay(nn.Module):
    """Softmax, times γ_h to the Manhattan distance, not normalized again: MaSA as its paper prints it.

    The sum of a filter is then below 1; its authors' code adds ln γ to the logits instead, the term `decay`.
    """

    def __init__(self, filters: int, heads: int, region: Region) -> None:
        super().__init__()
        self.filters, self.heads, self.region = filters, heads, region

    def forward(self, logits: Tensor, valid: Tensor | None) -> Tensor:
        """Logits in the region's layout → weights."""
        if valid is not None:
            logits = logits.masked_fill(~valid, float("-inf"))
        table = decay_table(self.heads, self.region, logits).exp()
        if self.filters != self.heads:  # several filters for each head, those of a head apart
            table = table.repeat(self.filters // self.heads, 1)
        weights = logits.softmax(-1)
        return weights * self.region.table(table, *logits.shape[1:3]).to(weights.dtype)
