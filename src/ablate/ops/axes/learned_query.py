"""The level `op/weights=learned_query`: queries are parameters, the same for all positions (QnA)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ablate.errors import unknown
from ablate.ops.axes.level import WeightsConfig
from ablate.ops.axes.regions import Region
from ablate.ops.checks import positive
from ablate.ops.slot import Slot

GAINS = ("per_tap", "per_query", "none")
KEPT = 4  # filter entries per channel and position that are kept for the backward pass


@dataclass(frozen=True)
class LearnedQueryConfig(WeightsConfig):
    """Keys against queries that are parameters; the filters of a head's queries are mixed by static gains."""

    queries: int
    normalized: bool
    gains: str
    pointwise: ClassVar[bool] = True

    @property
    def at_keys(self) -> tuple[str, ...]:
        """Every weight."""
        return ("its product",)

    def check_values(self) -> None:
        """Refuse a number of queries below 1, unknown gains."""
        positive("op.weights.queries", self.queries)
        if self.gains not in GAINS:
            raise unknown("op.weights.gains", self.gains, GAINS)

    def build(self, slot: Slot, heads: int, region: Region) -> LearnedQueryWeights:
        """Build the generator."""
        return LearnedQueryWeights(self, slot.dim, heads, region)


class LearnedQueryWeights(nn.Module):
    """Query-and-attend (QnA; Arar, Shamir and Bermano, CVPR 2022).

    A_ij[q, g] = q̂[q, g]·k_j + r^b_Δ[q, g] for each of n queries of each head, with q̂ = q / (‖q‖ + 1e−6) / √d,
    or q / √d where queries are not normalized. After the norm, `mix` makes a head's filter of its n:
    F_ij[g] = Σ_q s_Δ[q, g] · Norm_j(A_ij[q, g]), with signed gains s per tap, per query, or 1.

    q̂·k_j does not depend on i. It is a map of n · heads channels, of linear maps that are multiplied first.
    Where filters have more than KEPT entries per channel (7×7 with 8 channels per head), they are computed
    again in the backward pass instead of being kept.
    """

    def __init__(self, config: LearnedQueryConfig, dim: int, heads: int, region: Region) -> None:
        super().__init__()
        self.heads, self.queries, self.normalized = heads, config.queries, config.normalized
        self.generated, width = config.queries * heads, dim // heads  # filters, before they are mixed
        self.query = nn.Parameter(torch.empty(config.queries, dim))
        self.key = nn.Linear(dim, dim, bias=False)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(self.generated, region.offsets))
        self.recomputes = self.generated * region.taps > KEPT * dim
        self.gains: nn.Parameter | None = None
        if config.gains != "none":
            taps = region.offsets if config.gains == "per_tap" else 1
            self.gains = nn.Parameter(nn.init.normal_(torch.empty(self.generated, taps), std=0.02))
        deviation = width**-0.5
        nn.init.trunc_normal_(self.query, std=deviation, a=-2 * deviation, b=2 * deviation)
        lecun_normal_(self.key.weight)

    def no_weight_decay(self) -> set[str]:
        """Relative positions are not decayed, as in Swin."""
        return {"relative_position_bias_table"}

    def forward(self, x: Tensor, region: Region) -> Tensor:
        """Logits of (B', H', W', C) in the region's layout, one map for each query of each head."""
        return self._logits(self.scores(x), self.relative_position_bias_table, region)

    def attend(
        self,
        x: Tensor,
        values: Tensor,
        region: Region,
        norm: Callable[[Tensor, Tensor | None], Tensor],
        multiply: Tensor | None,
        add: Tensor | None,
        shape: torch.Size,
    ) -> Tensor:
        """Σ_j (multiply · F_ij + add) · v_j over groups of a map of `shape`; keeps no filter.

        The norm must have no parameters.
        """

        def summed(scores: Tensor, values: Tensor, table: Tensor, *static: Tensor | None) -> Tensor:
            gains, multiply, add = static
            valid = region.valid(shape, scores.device)
            filters = self.mix(norm(self._logits(scores, table, region), valid), region, gains)
            return region.aggregate(values, filters, multiply, add, shape)

        given = (self.scores(x), values, self.relative_position_bias_table, self.gains, multiply, add)
        y: Tensor = checkpoint(summed, *given, use_reentrant=False, preserve_rng_state=False)
        return y

    def _logits(self, scores: Tensor, table: Tensor, region: Region) -> Tensor:
        return region.content(torch.ones_like(scores), scores, self.generated, None, table)

    def scores(self, x: Tensor) -> Tensor:
        """q̂·k_j: (B', H', W', C) → (B', H', W', queries · heads), queries first."""
        query = self.query.unflatten(-1, (self.heads, -1))  # (queries, G, d)
        if self.normalized:
            query = query / (query.norm(dim=-1, keepdim=True) + 1e-6)
        query = query * query.shape[-1] ** -0.5
        key = self.key.weight.unflatten(0, (self.heads, -1))  # (G, d, C)
        return F.linear(x, torch.einsum("qgd,gdc->qgc", query, key).flatten(0, 1))

    def mix(self, filters: Tensor, region: Region, gains: Tensor | None) -> Tensor:
        """Filters of all queries in the region's layout → one for each head."""
        if gains is not None:
            table = gains.expand(-1, region.offsets)
            filters = filters * region.table(table, *filters.shape[1:3]).to(filters.dtype)
        dim = region.head_dimension
        return filters.unflatten(dim, (self.queries, self.heads)).sum(dim)

    def extra_repr(self) -> str:
        return f"queries={self.queries}, normalized={self.normalized}"


def lecun_normal_(weight: Tensor) -> None:
    """Initialise a linear layer as Flax does: truncated at two deviations, variance 1 / inputs."""
    deviation = weight.shape[1] ** -0.5 / 0.87962566103423978  # before the cut
    nn.init.trunc_normal_(weight, std=deviation, a=-2 * deviation, b=2 * deviation)
