"""The factor `op/norm`: normalization of the weights over the taps of a region."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


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


NORMS = {"softmax": softmax, "filter_norm": filter_norm, "identity": identity}
LEVELS: dict[str, type] = dict.fromkeys(NORMS, NormConfig)
