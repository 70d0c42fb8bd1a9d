"""Mean and variance of what a neighbourhood's pairs and patches hold, without making them.

Every sum over positions and taps is a mean over the map or over its neighbourhoods: of features centred
at their mean, summed in float64, so that what cancels between the terms is far below float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ablate.ops.kernels.relations.parts import exact, inner


def of_differences(own: Tensor, neighbor: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) of a_i − b_j over all positions i and their neighbours j, in float64.

    E(a_i − b_j)² = E a_i² + E b_j² − 2 E(a_i · mean_j b_j), of centred a and b.

    Args:
        own: a, (B, C, H, W).
        neighbor: b, padded, (B, C, H + K − 1, W + K − 1).
        kernel: K, odd.
    """
    own, own_mean = _centred(own, own.mean((0, 2, 3), dtype=torch.float64))
    neighbor, neighbor_mean = _centred(neighbor, _by_tap(neighbor, kernel).mean((1, 2)))
    around = F.avg_pool2d(F.avg_pool2d(neighbor, (kernel, 1), stride=1), (1, kernel), stride=1)
    squares = own.square().mean((0, 2, 3), dtype=torch.float64)
    products = (own * around).mean((0, 2, 3), dtype=torch.float64)
    variance = squares + _by_tap(neighbor.square(), kernel).mean((1, 2)) - 2 * products
    return own_mean - neighbor_mean, variance.clamp(min=0)


def of_taps(neighbor: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    """Mean and variance (C, K, K) of the neighbours at each tap over all positions, in float64."""
    neighbor, centre = _centred(neighbor, _by_tap(neighbor, kernel).mean((1, 2)))
    mean = _by_tap(neighbor, kernel)
    variance = _by_tap(neighbor.square(), kernel) - mean.square()
    return mean + centre[:, None, None], variance.clamp(min=0)


def _by_tap(neighbor: Tensor, kernel: int) -> Tensor:
    """Means over all positions of a padded map, (C, K, K), in float64."""
    return F.avg_pool2d(neighbor.mean(0, dtype=torch.float64), inner(neighbor, kernel), stride=1)


def _centred(x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    x = exact(x)
    return x - mean.to(x)[:, None, None], mean
