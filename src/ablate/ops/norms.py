"""Normalisation of the weights over a region's taps."""

from __future__ import annotations

import math

from torch import Tensor


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
    gain = math.sqrt(2 / logits.shape[-1])
    if valid is None:
        centred = logits - logits.mean(-1, keepdim=True)
        return centred / (logits.std(-1, keepdim=True) + 1e-10) * gain
    count = valid.sum(-1, keepdim=True)
    mean = logits.masked_fill(~valid, 0).sum(-1, keepdim=True) / count
    centred = (logits - mean).masked_fill(~valid, 0)
    variance = centred.square().sum(-1, keepdim=True) / (count - 1).clamp(min=1)
    return centred / (variance.clamp(min=1e-20).sqrt() + 1e-10) * gain


def identity(logits: Tensor, valid: Tensor | None) -> Tensor:
    """The weights as they are; 0 where a tap does not count."""
    return logits if valid is None else logits.masked_fill(~valid, 0)


NORMS = {"softmax": softmax, "filter_norm": filter_norm, "identity": identity}
