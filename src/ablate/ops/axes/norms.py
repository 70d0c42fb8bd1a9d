"""The factor `op/norm`: normalization of the weights over the taps of a region."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ablate.ops.axes.decay import SoftmaxDecay
from ablate.ops.axes.regions import Region

Norm = Callable[[Tensor, Tensor | None], Tensor]  # of logits, and the mask of the taps that count
ELEMENTWISE = ("identity", "tanh")  # each weight by itself: what the others are does not matter


@dataclass(frozen=True)
class NormConfig:
    """Normalisation of the weights over the taps."""

    name: str


def softmax(logits: Tensor, valid: Tensor | None) -> Tensor:
    """exp(a_j) / Σ exp(a_j) over the taps that count."""
    if valid is not None:
        logits = logits.masked_fill(~valid, float("-inf"))
    return logits.softmax(-1)


def filter_norm(logits: Tensor, valid: Tensor | None) -> Tensor:
    """Zero mean and the standard deviation √2/√T over the taps (DDF; Zhou et al., 2021).

    The standard deviation is the unbiased one, as in the authors' code; taps that do not count
    get weight 0 and enter neither statistic.
    """
    if logits.numel() == 0:  # an empty batch, of which PyTorch takes no standard deviation
        return logits
    gain = math.sqrt(2 / logits.shape[-1])
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))  # 1e-10 is 0 in half precision
    if valid is None:
        centred = exact - exact.mean(-1, keepdim=True)
        deviation = exact.std(-1, keepdim=True)
    else:
        count = valid.sum(-1, keepdim=True)
        mean = exact.masked_fill(~valid, 0).sum(-1, keepdim=True) / count
        centred = (exact - mean).masked_fill(~valid, 0)
        variance = centred.square().sum(-1, keepdim=True) / (count - 1).clamp(min=1)
        deviation = variance.clamp(min=1e-20).sqrt()
    return (centred / (deviation + 1e-10) * gain).to(logits.dtype)


def identity(logits: Tensor, valid: Tensor | None) -> Tensor:
    """The weights as they are; 0 where a tap does not count."""
    return logits if valid is None else logits.masked_fill(~valid, 0)


def tanh(logits: Tensor, valid: Tensor | None) -> Tensor:
    """Each weight between −1 and 1 by itself (CloFormer, Fan et al., 2023); 0 where a tap does not count."""
    return identity(logits.tanh(), valid)


class GroupNorm(nn.Module):
    """Group norm with a group for each filter (LS convolution, Wang et al., 2025).

    Mean and biased variance are those over the taps and all positions of a map or window that count,
    then each offset of a filter has a learned gain and shift. A tap that does not count has weight 0.
    """

    EPSILON = 1e-5

    def __init__(self, filters: int, region: Region) -> None:
        super().__init__()
        self.region = region
        self.weight = nn.Parameter(torch.ones(filters, region.offsets))
        self.bias = nn.Parameter(torch.zeros(filters, region.offsets))

    def no_weight_decay(self) -> set[str]:
        """Gain and shift, as of any norm."""
        return {"weight", "bias"}

    def forward(self, logits: Tensor, valid: Tensor | None) -> Tensor:
        """Logits in the region's layout → weights."""
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
        over = (*self.region.positions, -1)
        if valid is None:
            mean = exact.mean(over, keepdim=True)
            centred = exact - mean
            variance = centred.square().mean(over, keepdim=True)
        else:
            exact, valid = torch.broadcast_tensors(exact, valid)
            count = valid.sum(over, keepdim=True)
            mean = exact.masked_fill(~valid, 0).sum(over, keepdim=True) / count
            centred = (exact - mean).masked_fill(~valid, 0)
            variance = centred.square().sum(over, keepdim=True) / count
        weight, bias = (self.region.table(x, *logits.shape[1:3]) for x in (self.weight, self.bias))
        normal = centred * (variance + self.EPSILON).rsqrt()
        return identity((normal * weight + bias).to(logits.dtype), valid)

    def extra_repr(self) -> str:
        return f"filters={self.weight.shape[0]}, epsilon={self.EPSILON}"


NORMS: dict[str, Norm] = {
    "softmax": softmax,
    "filter_norm": filter_norm,
    "identity": identity,
    "tanh": tanh,
}
LEVELS: dict[str, type] = dict.fromkeys([*NORMS, "group_norm", "softmax_decay"], NormConfig)


def build(config: NormConfig, filters: int, heads: int, region: Region) -> Norm:
    """Build the norm of a checked configuration, for one or several filters per head."""
    if config.name == "softmax_decay":
        return SoftmaxDecay(filters, heads, region)
    return GroupNorm(filters, region) if config.name == "group_norm" else NORMS[config.name]
