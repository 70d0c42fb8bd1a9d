"""The factor `op/weights`: generators of the weights A_ij before they are normalized, one class per level.

Each maps groups (B', H', W', C) to logits in its region's layout, one map per head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.errors import UserError, unknown
from ablate.ops.axes.decay import decay_table
from ablate.ops.axes.hadamard_gate import HadamardGateConfig, HadamardGateWeights
from ablate.ops.axes.learned_query import LearnedQueryConfig, LearnedQueryWeights
from ablate.ops.axes.pooled_affinity import PooledAffinityConfig, PooledAffinityWeights
from ablate.ops.axes.regions import (
    NeighborhoodConfig,
    NeighborhoodRegion,
    Region,
    RegionConfig,
    SampledConfig,
    WindowAndPooledConfig,
    position_products,
)
from ablate.ops.axes.wide_conv import WideConvConfig, WideConvWeights
from ablate.ops.checks import positive
from ablate.ops.slot import Slot

TERMS = ("content", "query_position", "key_position", "bias", "decay")


@dataclass(frozen=True)
class PairwiseConfig:
    """A_ij from any subset of q·k, q·r^k, r^q·k, r^b and a static decay."""

    name: str
    terms: tuple[str, ...]
    scale: float | None
    bias: bool


@dataclass(frozen=True)
class HadamardConfig:
    """The terms of `pairwise` with u = q⊙k instead of both query and key (ELSA's equation)."""

    name: str
    terms: tuple[str, ...]
    scale: float | None
    bias: bool


@dataclass(frozen=True)
class HadamardConvConfig:
    """u = q⊙k through a grouped K×K convolution, GELU and a 1×1 convolution (ELSA's code)."""

    name: str
    group_width: int
    scale: float
    bias: bool


@dataclass(frozen=True)
class BottleneckConfig:
    """The centre feature through a two-layer bottleneck (involution)."""

    name: str
    reduction: int
    reduce_bias: bool


@dataclass(frozen=True)
class LinearConfig:
    """The centre feature through one linear layer (dynamic filter)."""

    name: str


@dataclass(frozen=True)
class PooledConfig:
    """The pooled feature through a two-layer bottleneck: one filter for all positions (D-DWConv)."""

    name: str
    reduction: int


@dataclass(frozen=True)
class StaticConfig:
    """Learned weights that do not depend on the input (convolution)."""

    name: str


WeightsConfig = (
    PairwiseConfig
    | HadamardConfig
    | HadamardConvConfig
    | BottleneckConfig
    | LinearConfig
    | PooledConfig
    | PooledAffinityConfig
    | StaticConfig
    | WideConvConfig
    | LearnedQueryConfig
    | HadamardGateConfig
)
POINTWISE = (PairwiseConfig, HadamardConfig, LinearConfig, StaticConfig, LearnedQueryConfig)  # one position's
LEVELS: dict[str, type] = {
    "pairwise": PairwiseConfig,
    "hadamard": HadamardConfig,
    "hadamard_conv": HadamardConvConfig,
    "bottleneck": BottleneckConfig,
    "linear": LinearConfig,
    "pooled": PooledConfig,
    "pooled_affinity": PooledAffinityConfig,
    "static": StaticConfig,
    "wide_conv": WideConvConfig,
    "learned_query": LearnedQueryConfig,
    "hadamard_gate": HadamardGateConfig,
}


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
        _initialize_transformer(self.query_key)

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
        _initialize_transformer(self.query_key)

    def forward(self, x: Tensor, region: Region) -> Tensor:
        """Logits of (B', H', W', C) in the region's layout."""
        query, key = self.query_key(x).chunk(2, dim=-1)
        product = query * key * self.scale
        return self.position(product, product, region)


class HadamardConvWeights(nn.Module):
    """u = scale · q⊙k → grouped K×K convolution → GELU → 1×1 convolution (ELSA, official code).

    q and k have 2·⌊C/3⌋ channels, rounded up to a multiple of `group_width`; the convolution sees
    zeros outside the map. Initialised as convolutions are in PyTorch: the authors' initialisation
    leaves them alone.
    """

    def __init__(self, config: HadamardConvConfig, dim: int, heads: int, region: NeighborhoodRegion) -> None:
        super().__init__()
        width = config.group_width
        inner = -(-2 * (dim // 3) // width) * width
        self.query_key = nn.Linear(dim, 2 * inner, bias=config.bias)
        self.scale = config.scale
        self.mix = nn.Conv2d(
            inner,
            inner,
            region.kernel,
            padding=region.dilation * (region.kernel // 2),
            dilation=region.dilation,
            groups=inner // width,
        )
        self.expand = nn.Linear(inner, heads * region.offsets)
        self.heads = heads

    def forward(self, x: Tensor, region: Region) -> Tensor:
        """(B, H, W, C) → (B, H, W, G, K²)."""
        query, key = self.query_key(x).chunk(2, dim=-1)
        product = query * key * self.scale
        mixed = self.mix(region.centres(product).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return region.at_query(self.expand(F.gelu(mixed)).unflatten(-1, (self.heads, -1)))


class BottleneckWeights(nn.Module):
    """The centre feature: C → C/reduction, batch norm, ReLU, → one weight per head and offset.

    Involution (Li et al., 2021), initialised as in a ResNet; with `reduce_bias` I-D-DWConv (Han et al.,
    2022), initialised as convolutions are in PyTorch.
    """

    def __init__(self, config: BottleneckConfig, dim: int, heads: int, region: Region) -> None:
        super().__init__()
        inner = dim // config.reduction
        self.reduce = nn.Linear(dim, inner, bias=config.reduce_bias)
        self.norm = nn.BatchNorm1d(inner)
        self.expand = nn.Linear(inner, heads * region.offsets)
        self.heads = heads
        if not config.reduce_bias:
            for layer in (self.reduce, self.expand):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(self.expand.bias)

    def forward(self, x: Tensor, region: Region) -> Tensor:
        """Logits of (B', H', W', C) in the region's layout."""
        x = region.centres(x)
        inner = self.norm(self.reduce(x).flatten(0, 2)).relu().unflatten(0, x.shape[:3])
        return region.at_query(self.expand(inner).unflatten(-1, (self.heads, -1)))


class LinearWeights(nn.Module):
    """The centre feature through one linear layer: one weight per head and offset."""

    def __init__(self, config: LinearConfig, dim: int, heads: int, region: Region) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, heads * region.offsets)
        self.heads = heads
        _initialize_transformer(self.expand)

    def forward(self, x: Tensor, region: Region) -> Tensor:
        """Logits of (B', H', W', C) in the region's layout."""
        return region.at_query(self.expand(region.centres(x)).unflatten(-1, (self.heads, -1)))


class PooledWeights(nn.Module):
    """The mean feature of a group: C → C/reduction, batch norm, ReLU, → one weight per head and offset.

    D-DWConv (Han et al., 2022): one filter per channel for all positions of an image. In windows
    the mean is the window's. Initialised as convolutions are in PyTorch, as the authors leave it.
    """

    def __init__(self, config: PooledConfig, dim: int, heads: int, region: Region) -> None:
        super().__init__()
        inner = dim // config.reduction
        self.reduce = nn.Linear(dim, inner, bias=False)
        self.norm = nn.BatchNorm1d(inner)
        self.expand = nn.Linear(inner, heads * region.offsets)
        self.heads = heads

    def forward(self, x: Tensor, region: Region) -> Tensor:
        """Logits of (B', H', W', C) in the region's layout."""
        inner = self.norm(self.reduce(x.mean((1, 2)))).relu()
        return region.uniform(self.expand(inner).unflatten(-1, (1, 1, self.heads, -1)), *x.shape[1:3])


class StaticWeights(nn.Module):
    """Learned weights per head and offset, whatever the input: a convolution's kernel."""

    def __init__(self, config: StaticConfig, dim: int, heads: int, region: Region) -> None:
        super().__init__()
        self.filters = nn.Parameter(torch.empty(heads, region.offsets))
        bound = 1 / math.sqrt(region.taps)  # PyTorch's own for a depthwise convolution
        nn.init.uniform_(self.filters, -bound, bound)

    def forward(self, x: Tensor, region: Region) -> Tensor:
        """Logits that broadcast over the batch."""
        return region.table(self.filters, *x.shape[1:3])


def check_values(config: WeightsConfig) -> None:
    """Refuse values that no slot could take.

    Raises:
        UserError: unknown, missing or repeated terms; a width or reduction below 1.
    """
    if isinstance(config, (PairwiseConfig, HadamardConfig)):
        for term in config.terms:
            if term not in TERMS:
                raise unknown("term of op.weights.terms", term, TERMS)
        if not config.terms or len(set(config.terms)) != len(config.terms):
            raise UserError(
                f"op.weights.terms={list(config.terms)}: give each term once, and at least one",
                f"terms: {', '.join(TERMS)}",
            )
    if isinstance(config, HadamardConvConfig):
        positive("op.weights.group_width", config.group_width)
    if isinstance(config, (BottleneckConfig, PooledConfig)):
        positive("op.weights.reduction", config.reduction)
    if isinstance(config, (WideConvConfig, LearnedQueryConfig, HadamardGateConfig)):
        config.check_values()
    if isinstance(config, PooledAffinityConfig):
        positive("op.weights.pooled", config.pooled)


def check(config: WeightsConfig, region: RegionConfig, slot: Slot) -> None:
    """Refuse weights that cannot exist over a region in a slot.

    Raises:
        UserError: with the reason.
    """
    if isinstance(region, SampledConfig) and isinstance(config, LearnedQueryConfig):
        raise UserError(
            "op/weights=learned_query with op/region=sampled: it needs the key at every tap, and a tap that "
            "is moved lies between keys",
            "use op/region=neighborhood, or weights of the centre feature such as op/weights=linear",
        )
    if isinstance(region, SampledConfig) and isinstance(config, (PairwiseConfig, HadamardConfig)):
        at_keys = [term for term in config.terms if term in ("content", "key_position")]
        if at_keys:
            raise UserError(
                f"op.weights.terms={list(config.terms)} with op/region=sampled: {' and '.join(at_keys)} "
                "needs the key at every tap, and a tap that is moved lies between keys",
                "use op.weights.terms=[query_position,bias], or weights of the centre feature such as "
                "op/weights=linear",
            )
    if isinstance(config, HadamardConvConfig) and not isinstance(region, (NeighborhoodConfig, SampledConfig)):
        raise UserError(
            f"op/weights=hadamard_conv with op/region={region.name}: its K×K convolution makes one weight "
            "for each tap of a sliding neighborhood; a window's positions have no common taps",
            "use op/region=neighborhood, or op/weights=hadamard, which works in every region",
        )
    if isinstance(config, (BottleneckConfig, PooledConfig)) and slot.dim % config.reduction:
        raise UserError(
            f"op.weights.reduction={config.reduction} does not divide the {slot.dim} channels of this slot",
            "choose a divisor",
        )
    if isinstance(config, WideConvConfig):
        config.check(slot)
    if isinstance(region, WindowAndPooledConfig) and not isinstance(config, POINTWISE):
        raise UserError(
            f"op/weights={config.name} with op/region={region.name}: it looks at neighbors or at statistics "
            "of features, and the tokens of the pooled map would be among them",
            "use op/region=window, or op/weights=linear, pairwise, hadamard, learned_query or static",
        )


def build(config: WeightsConfig, slot: Slot, heads: int, region: Region) -> nn.Module:
    """The generator of a checked configuration."""
    dim = slot.dim
    if isinstance(config, HadamardGateConfig):
        return HadamardGateWeights(config, dim, heads, slot)
    if isinstance(config, HadamardConvConfig):
        assert isinstance(region, NeighborhoodRegion)  # `check` has refused the others
        return HadamardConvWeights(config, dim, heads, region)
    generators = {
        PairwiseConfig: PairwiseWeights,
        HadamardConfig: HadamardWeights,
        BottleneckConfig: BottleneckWeights,
        LinearConfig: LinearWeights,
        PooledConfig: PooledWeights,
        PooledAffinityConfig: PooledAffinityWeights,
        StaticConfig: StaticWeights,
        WideConvConfig: WideConvWeights,
        LearnedQueryConfig: LearnedQueryWeights,
    }
    return generators[type(config)](config, dim, heads, region)


def _initialize_transformer(linear: nn.Linear) -> None:
    nn.init.trunc_normal_(linear.weight, std=0.02)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
