"""Mean and variance of what pairs and patches hold, without making them, and a batch norm that has them.

Of a neighborhood, every sum over positions and taps is a mean over the map or over its neighborhoods: of
features centred at their mean, summed in float64, so that what cancels between terms is far below float32.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.kernels.pairwise_features.parts import exact, inner

Moments = tuple[Tensor, Tensor]  # mean and variance, biased


def of_differences(own: Tensor, neighbor: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) of a_i − b_j over all positions i and their neighbors j, in float64.

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
    """Mean and variance (C, K, K) of the neighbors at each tap over all positions, in float64."""
    neighbor, centre = _centred(neighbor, _by_tap(neighbor, kernel).mean((1, 2)))
    mean = _by_tap(neighbor, kernel)
    variance = _by_tap(neighbor.square(), kernel) - mean.square()
    return mean + centre[:, None, None], variance.clamp(min=0)


def of_similarities(
    query: Tensor, key: Tensor, at_query: Tensor, at_key: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Mean and variance (similarities, G) of q_i·k_j, q_i·r^q_ij and k_j·r^k_ji over all pairs, in float64.

    A sum of products is a product of sums, and Σ_ij (q_i·k_j)² = ⟨Σ_i q_i q_iᵀ, Σ_j k_j k_jᵀ⟩.

    Args:
        query: q, (N, G, c, L).
        key: k alike.
        at_query: r^q, (c, L, L), the query's position first.
        at_key: r^k alike, the key's first; None: no such similarity.
    """
    query, key = query.double(), key.double()
    count = query.shape[0] * query.shape[3] ** 2
    sums, squares = query.sum(-1) * key.sum(-1), (query @ query.mT) * (key @ key.mT)
    found = [(sums.sum((0, 2)), squares.sum((0, 2, 3)))]
    for feature, table in ((query, at_query), (key, at_key)):
        if table is None:
            continue
        table = table.double()  # (c, own position, other)
        by_position = feature.permute(1, 3, 2, 0)  # (G, L, c, N)
        of_table = table.transpose(0, 1) @ table.permute(1, 2, 0)  # (L, c, c)
        sums = feature.sum(0) * table.sum(-1)  # (G, c, L)
        found.append((sums.sum((1, 2)), (by_position @ by_position.mT * of_table).sum((1, 2, 3))))
    mean, square = (torch.stack(moments) / count for moments in zip(*found, strict=True))
    return mean, (square - mean.square()).clamp(min=0)


def normalization(
    norm: nn.modules.batchnorm._BatchNorm, moments: Moments | None, count: int
) -> tuple[Tensor, Tensor]:
    """Scale and shift of a batch norm, in float32 at least; its running statistics are kept up.

    Args:
        norm: with affine weights and running statistics.
        moments: in training, mean and variance of `count` values of each channel.
        count: of the values.
    """
    running = cast(tuple[Tensor, Tensor], (norm.running_mean, norm.running_var))
    mean, variance = running if moments is None else moments
    if moments is not None:
        with torch.no_grad():
            cast(Tensor, norm.num_batches_tracked).add_(1)
            for average, value in zip(running, (mean, variance * (count / (count - 1))), strict=True):
                average.lerp_(value.to(average), cast(float, norm.momentum))
    scale = norm.weight * (variance.double() + norm.eps).rsqrt()
    precise = torch.promote_types(norm.weight.dtype, torch.float32)
    return scale.to(precise), (norm.bias - mean * scale).to(precise)


def _by_tap(neighbor: Tensor, kernel: int) -> Tensor:
    """Means over all positions of a padded map, (C, K, K), in float64."""
    return F.avg_pool2d(neighbor.mean(0, dtype=torch.float64), inner(neighbor, kernel), stride=1)


def _centred(x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    x = exact(x)
    return x - mean.to(x)[:, None, None], mean
