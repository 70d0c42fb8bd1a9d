"""The levels `pairwise` and `hadamard` of the weights: terms of queries, keys and relative positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ablate.errors import UserError, unknown
from ablate.ops.axes.decay import decay_table
from ablate.ops.axes.level import WeightsConfig
from ablate.ops.axes.regions import Region, position_products
from ablate.ops.slot import Slot

TERMS = ("content", "query_position", "key_position", "bias", "decay")


@dataclass(frozen=True)
class PairConfig(WeightsConfig):
    """Terms of positions that meet, and settings of the layer that makes queries and keys."""

    terms: tuple[str, ...]
    scale: float | None
    bias: bool
    pointwise: ClassVar[bool] = True

    @property
    def at_keys(self) -> tuple[str, ...]:
        """The terms of q·k and r^q·k."""
        return tuple(term for term in self.terms if term in ("content", "key_position"))

    def check_values(self) -> None:
        """Refuse unknown, missing or repeated terms."""
        for term in self.terms:
            if term not in TERMS:
                raise unknown("term of op.weights.terms", term, TERMS)
        if not self.terms or len(set(self.terms)) != len(self.terms):
            raise UserError(
                f"op.weights.terms={list(self.terms)}: give each term once, and at least one",
                f"terms: {', '.join(TERMS)}",
            )


@dataclass(frozen=True)
class PairwiseConfig(PairConfig):
    """A_ij from any subset of q·k, q·r^k, r^q·k, r^b and a static decay."""

    def build(self, slot: Slot, heads: int, region: Region) -> PairwiseWeights:
        """Build the generator."""
        return PairwiseWeights(self, slot.dim, heads, region)


@dataclass(frozen=True)
class HadamardConfig(PairConfig):
    """The terms of `pairwise` with u = q⊙k instead of both query and key (ELSA's equation)."""

    def build(self, slot: Slot, heads: int, region: Region) -> HadamardWeights:
        """Build the generator."""
        return HadamardWeights(self, slot.dim, heads, region)


class PositionTerms(nn.Module):
    """Any subset of q_i·k_j + q_i·r^k_Δ + r^q_Δ·k_j + r^b_Δ + ln γ·|Δ|, for given queries and keys."""

    def __init__(self, terms: tuple[str, ...], dim: int, heads: int, offsets: int) -> None:
        super().__init__()
        self.terms, self.heads = terms, heads
        width = dim // heads
        self.query_position: nn.Parameter | None = None
        self.key_position: nn.Parameter | None = None
        self.relative_position_bias_table: nn.Parameter | None = None
        if "query_position" in terms:
            self.query_position = nn.Parameter(torch.empty(heads, offsets, width))
        if "key_position" in terms:
            self.key_position = nn.Parameter(torch.empty(heads, offsets, width))
        if "bias" in terms:
            self.relative_position_bias_table = nn.Parameter(torch.empty(heads, offsets))
        for table in self.parameters():
            nn.init.trunc_normal_(table, std=0.02)

    def no_weight_decay(self) -> set[str]:
        """Relative positions are not decayed, as in Swin."""
        return {name for name, _ in self.named_parameters()}

    def bias(self, region: Region, like: Tensor) -> Tensor | None:
        """r^b_Δ and the decay of each head, (heads, offsets); None without either."""
        table = self.relative_position_bias_table
        if "decay" not in self.terms:
            return table
        decay = decay_table(self.heads, region, like if table is None else table)
        return decay if table is None else table + decay

    def forward(self, query: Tensor, key: Tensor, region: Region) -> Tensor:
        """Logits in the region's layout, for (B', H', W', C) queries and keys."""
        key_position, bias = self.key_position, self.bias(region, query)
        logits: list[Tensor] = []
        if "content" in self.terms:
            logits.append(region.content(query, key, self.heads, key_position, bias))
            key_position = bias = None  # it has them
        if self.query_position is not None:
            logits.append(region.at_query(position_products(query, self.query_position)))
        if key_position is not None:
            logits.append(region.at_key(position_products(key, key_position)))
        if bias is not None:
            logits.append(region.table(bias, *query.shape[1:3]))
        return sum(logits[1:], start=logits[0])


class PairwiseWeights(nn.Module):
    """Attention: terms of linear queries and keys; queries are scaled by `scale`, default 1/√(C/heads)."""

    def __init__(self, config: PairwiseConfig, dim: int, heads: int, region: Region) -> None:
        super().__init__()
        self.query_key = nn.Linear(dim, 2 * dim, bias=config.bias)
        self.scale = config.scale if config.scale is not None else (dim // heads) ** -0.5
        self.position = PositionTerms(config.terms, dim, heads, region.offsets)
        initialize_transformer(self.query_key)

    def forward(self, x: Tensor, region: Region) -> Tensor:
        """Logits of (B', H', W', C) in the region's layout."""
        query, key = self.query_key(x).chunk(2, dim=-1)
        return self.position(query * self.scale, key.contiguous(), region)

    def attend(self, x: Tensor, values: Tensor, region: Region, shape: torch.Size) -> Tensor:
        """Softmax attention with the terms content and bias in one pass, over the groups of a `shape`."""
        query, key = self.query_key(x).chunk(2, dim=-1)
        table = self.position.bias(region, values)
        bias = values.new_zeros(self.position.heads, region.offsets) if table is None else table
        return region.attend(query * self.scale, key, values, bias, shape)


class HadamardWeights(nn.Module):
    """Hadamard attention: the pairwise terms with u = scale · q⊙k as query and key (ELSA, equation form).

    With the terms query_position, key_position and bias this is the paper's
    u_i·r^k_Δ + r^q_Δ·u_j + r^b_Δ.
    """

    def __init__(self, config: HadamardConfig, dim: int, heads: int, region: Region) -> None:
        super().__init__()
        self.query_key = nn.Linear(dim, 2 * dim, bias=config.bias)
        self.scale = 1.0 if config.scale is None else config.scale
        self.position = PositionTerms(config.terms, dim, heads, region.offsets)
        initialize_transformer(self.query_key)

    def forward(self, x: Tensor, region: Region) -> Tensor:
        """Logits of (B', H', W', C) in the region's layout."""
        query, key = self.query_key(x).chunk(2, dim=-1)
        product = query * key * self.scale
        return self.position(product, product, region)


def initialize_transformer(linear: nn.Linear) -> None:
    """Initialise a linear layer as in a transformer: σ = 0.02, no bias."""
    nn.init.trunc_normal_(linear.weight, std=0.02)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
