"""The level `pooled_affinity` of the weights: affinities to pooled keys, mapped to the taps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ablate.kernels.layout import pool_cells
from ablate.ops.axes.level import WeightsConfig
from ablate.ops.axes.regions import Region
from ablate.ops.checks import positive
from ablate.ops.slot import Slot


@dataclass(frozen=True)
class PooledAffinityConfig(WeightsConfig):
    """Affinities of the centre to S×S pooled keys, mapped to the taps (ContMix)."""

    pooled: int

    def check_values(self) -> None:
        """Refuse fewer than one region."""
        positive("op.weights.pooled", self.pooled)

    def build(self, slot: Slot, heads: int, region: Region) -> PooledAffinityWeights:
        """Build the generator."""
        return PooledAffinityWeights(self, slot.dim, heads, region)


class PooledAffinityWeights(nn.Module):
    """A_{i,Δ} = Σ_l P_{Δ,l} (q_i·κ_l/√d) + p_Δ + r^b_Δ, κ of the means of S×S regions of a group.

    The weights of ContMix (Lou and Yu, 2025) without its batch norms: what a position has in common with each
    part of its map generates its filter. P is shared by all heads and positions.
    """

    def __init__(self, config: PooledAffinityConfig, dim: int, heads: int, region: Region) -> None:
        super().__init__()
        self.heads, self.pooled = heads, config.pooled
        self.scale = (dim // heads) ** -0.5
        self.query, self.key = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.expand = nn.Linear(config.pooled**2, region.offsets)
        self.relative_position_bias_table = nn.Parameter(torch.empty(heads, region.offsets))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        for layer in (self.query, self.key, self.expand):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def no_weight_decay(self) -> set[str]:
        """Relative positions are not decayed, as in Swin."""
        return {"relative_position_bias_table"}

    def forward(self, x: Tensor, region: Region) -> Tensor:
        """Logits of (B', H', W', C) in the region's layout."""
        query = (self.query(region.centres(x)) * self.scale).unflatten(-1, (self.heads, -1))
        key = (
            self.key(pool_cells(x, (self.pooled, self.pooled))).flatten(1, 2).unflatten(-1, (self.heads, -1))
        )
        affinity = torch.einsum("bhwgd,blgd->bhwgl", query, key)
        table = region.table(self.relative_position_bias_table, *query.shape[1:3])
        return region.at_query(self.expand(affinity)) + table
