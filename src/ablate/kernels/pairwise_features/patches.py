"""The first layer over patches p_i,ct = relu(s_ct · b_n(i,t)[c] + u_ct), a part at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from ablate.kernels.pairwise_features.parts import gather, inner, parts, relu_backward, taps, times, totals


def features(neighbor: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, kernel: int) -> Tensor:
    """Σ_ct weight[g, c, t] · p_i,ct, (B, G, H, W)."""
    out = neighbor.new_empty(neighbor.shape[0], weight.shape[0], *inner(neighbor, kernel))
    scale, shift, weight = (x.to(neighbor) for x in (scale, shift, weight))
    for images, rows in parts(neighbor, kernel):
        patches = _patches(taps(neighbor, (images, rows), kernel), scale, shift)
        found = times(weight.flatten(1), patches.flatten(4).flatten(1, 3))
        out[images, :, rows] = found.unflatten(2, (-1, out.shape[3]))
    return out


def features_backward(
    grad: Tensor, neighbor: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, kernel: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the map and of the three weights."""
    of_neighbor = torch.zeros_like(neighbor)
    of_scale, of_shift, of_weight = totals(scale, shift, weight)
    scale, shift, weight = (x.to(neighbor) for x in (scale, shift, weight))
    for images, rows in parts(neighbor, kernel):
        theirs = taps(neighbor, (images, rows), kernel)
        patches = _patches(theirs, scale, shift)
        of_part = grad[images, :, rows].flatten(2)
        of_weight += (of_part @ patches.flatten(4).flatten(1, 3).mT).sum(0).view_as(weight)
        of_patches = times(weight.flatten(1).T, of_part).view_as(patches)
        of_patches = relu_backward(of_patches, patches)
        of_shift += of_patches.sum((0, 4, 5))
        of_scale += torch.mul(of_patches, theirs, out=patches).sum((0, 4, 5))
        gather(of_patches.mul_(scale[..., None, None]), (images, rows), of_neighbor, 1)
    return of_neighbor, of_scale, of_shift, of_weight


def _patches(theirs: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """p of a part, (b, C, K, K, rows, W)."""
    scale, shift = scale[..., None, None], shift[..., None, None]
    return torch.addcmul(shift, theirs, scale, out=theirs.new_empty(theirs.shape)).relu_()
