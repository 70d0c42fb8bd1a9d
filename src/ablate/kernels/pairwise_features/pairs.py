"""Filters of pairs h_ij = relu(a_i − b_j) through two layers, and the moments of h; a part at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ablate.kernels.pairwise_features.parts import (
    Part,
    exact,
    gather,
    parts,
    relu_backward,
    taps,
    times,
    totals,
)


def moments(own: Tensor, neighbor: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    """Mean (C,) and covariance (C, C) of h in float64; parts are centred, and merged as by Chan et al."""
    count, channels = 0, own.shape[1]
    mean = own.new_zeros(channels, dtype=torch.float64)
    scatter = own.new_zeros(channels, channels, dtype=torch.float64)
    for part in parts(neighbor, kernel):
        centred = exact(_hidden(own, neighbor, part, kernel))
        of_part, added = centred.mean((0, 2)), centred.numel() // channels
        centred -= of_part[:, None]
        step, total = of_part.double() - mean, count + added
        mean += step * (added / total)
        scatter += (centred @ centred.mT).sum(0) + step.outer(step) * (count * added / total)
        count = total
    return mean, scatter / count


def moments_backward(
    of_mean: Tensor, of_covariance: Tensor, mean: Tensor, own: Tensor, neighbor: Tensor, kernel: int
) -> tuple[Tensor, Tensor]:
    """Gradients of both maps; that of one of N pairs is (g + (G + Gᵀ)(h − m)) / N."""
    of_own, of_neighbor = torch.zeros_like(own), torch.zeros_like(neighbor)
    count = own.numel() // own.shape[1] * kernel**2
    linear = (of_covariance + of_covariance.T) / count
    constant = of_mean / count - linear @ mean
    for part in parts(neighbor, kernel):
        hidden = _hidden(own, neighbor, part, kernel)
        precise = exact(hidden)
        of_hidden = times(linear.to(precise), precise).add_(constant.to(precise)[:, None])
        _aggregate_transpose(relu_backward(of_hidden.to(hidden), hidden), part, kernel, of_own, of_neighbor)
    return of_own, of_neighbor


def filters(
    own: Tensor, neighbor: Tensor, reduce: Tensor, shift: Tensor, expand: Tensor, bias: Tensor, kernel: int
) -> Tensor:
    """softmax over taps of expand · relu(reduce · h + shift) + bias, (B, H, W, G, K²)."""
    batch, _, height, width = own.shape
    out = own.new_empty(batch, height, width, expand.shape[0], kernel**2)
    reduce, shift, expand, bias = (x.to(own) for x in (reduce, shift, expand, bias))
    for part in parts(neighbor, kernel):
        narrow = _narrow(_hidden(own, neighbor, part, kernel), reduce, shift)
        logits = times(expand, narrow).add_(bias[:, None]).unflatten(2, (kernel**2, -1))
        _by_tap(out, part).copy_(logits.softmax(2))
    return out


def filters_backward(
    grad: Tensor, out: Tensor, own: Tensor, neighbor: Tensor, weights: Sequence[Tensor], kernel: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of both maps and of the four weights (reduce, shift, expand, bias), given the filters."""
    of_own, of_neighbor = torch.zeros_like(own), torch.zeros_like(neighbor)
    of_reduce, of_shift, of_expand, of_bias = totals(*weights)
    reduce, shift, expand = (x.to(own) for x in weights[:3])
    for part in parts(neighbor, kernel):
        hidden = _hidden(own, neighbor, part, kernel)
        narrow = _narrow(hidden, reduce, shift)
        chosen = _by_tap(out, part).contiguous()
        product = chosen * _by_tap(grad, part)
        of_logits = product.sub_(chosen * product.sum(2, keepdim=True)).flatten(2)
        of_narrow = relu_backward(times(expand.T, of_logits), narrow)
        of_expand += (of_logits @ narrow.mT).sum(0)
        of_bias += of_logits.sum((0, 2))
        of_reduce += (of_narrow @ hidden.mT).sum(0)
        of_shift += of_narrow.sum((0, 2))
        _aggregate_transpose(
            relu_backward(times(reduce.T, of_narrow), hidden), part, kernel, of_own, of_neighbor
        )
    return of_own, of_neighbor, of_reduce, of_shift, of_expand, of_bias


def _hidden(own: Tensor, neighbor: Tensor, part: Part, kernel: int) -> Tensor:
    """h of a part, (b, C, K²·L) for its L positions of an image."""
    images, rows = part
    theirs = taps(neighbor, part, kernel)
    hidden = own.new_empty(theirs.shape)
    return torch.sub(own[images, :, None, None, rows], theirs, out=hidden).relu_().flatten(2)


def _narrow(hidden: Tensor, reduce: Tensor, shift: Tensor) -> Tensor:
    return times(reduce, hidden).add_(shift[:, None]).relu_()


def _by_tap(by_position: Tensor, part: Part) -> Tensor:
    """A part of (B, H, W, G, K²) as (b, G, K², L): a view."""
    return by_position[part].flatten(1, 2).permute(0, 2, 3, 1)


def _aggregate_transpose(
    of_hidden: Tensor, part: Part, kernel: int, of_own: Tensor, of_neighbor: Tensor
) -> None:
    """Add the gradients of differences, (b, C, K²·L), to those of the positions that they are made of."""
    images, rows = part
    mine = of_own[images, :, rows]
    of_taps = of_hidden.unflatten(2, (kernel, kernel, *mine.shape[2:]))
    mine += of_taps.sum((2, 3))
    gather(of_taps, part, of_neighbor, -1)
