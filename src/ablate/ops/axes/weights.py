"""The factor `op/weights`: generators of the weights A_ij before they are normalized, one class per level.

Each maps groups (B', H', W', C) to logits in its region's layout, one map per head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.errors import UserError
from ablate.ops.axes.hadamard_gate import HadamardGateConfig
from ablate.ops.axes.learned_query import LearnedQueryConfig
from ablate.ops.axes.level import WeightsConfig
from ablate.ops.axes.pairs import HadamardConfig, PairwiseConfig, initialize_transformer
from ablate.ops.axes.pooled_affinity import PooledAffinityConfig
from ablate.ops.axes.regions import (
    NeighborhoodConfig,
    NeighborhoodRegion,
    Region,
    RegionConfig,
    SampledConfig,
    WindowAndPooledConfig,
)
from ablate.ops.axes.wide_conv import WideConvConfig
from ablate.ops.checks import positive
from ablate.ops.slot import Slot


@dataclass(frozen=True)
class HadamardConvConfig(WeightsConfig):
    """u = q⊙k through a grouped K×K convolution, GELU and a 1×1 convolution (ELSA's code)."""

    group_width: int
    scale: float
    bias: bool

    def check_values(self) -> None:
        """Refuse a width below 1."""
        positive("op.weights.group_width", self.group_width)

    def check(self, region: RegionConfig, slot: Slot) -> None:
        """Refuse regions without a common grid of taps."""
        if not isinstance(region, (NeighborhoodConfig, SampledConfig)):
            raise UserError(
                f"op/weights=hadamard_conv with op/region={region.name}: its K×K convolution makes one "
                "weight for each tap of a sliding neighborhood; a window's positions have no common taps",
                "use op/region=neighborhood, or op/weights=hadamard, which works in every region",
            )

    def build(self, slot: Slot, heads: int, region: Region) -> HadamardConvWeights:
        """Build the generator."""
        assert isinstance(region, NeighborhoodRegion)  # `check` has refused the others
        return HadamardConvWeights(self, slot.dim, heads, region)


@dataclass(frozen=True)
class BottleneckConfig(WeightsConfig):
    """The centre feature through a two-layer bottleneck (involution)."""

    reduction: int
    reduce_bias: bool

    def check_values(self) -> None:
        """Refuse a reduction below 1."""
        positive("op.weights.reduction", self.reduction)

    def check(self, region: RegionConfig, slot: Slot) -> None:
        """Refuse a reduction that does not divide the channels."""
        check_reduction(self.reduction, slot)

    def build(self, slot: Slot, heads: int, region: Region) -> BottleneckWeights:
        """Build the generator."""
        return BottleneckWeights(self, slot.dim, heads, region)


@dataclass(frozen=True)
class LinearConfig(WeightsConfig):
    """The centre feature through one linear layer (dynamic filter)."""

    pointwise: ClassVar[bool] = True

    def build(self, slot: Slot, heads: int, region: Region) -> LinearWeights:
        """Build the generator."""
        return LinearWeights(self, slot.dim, heads, region)


@dataclass(frozen=True)
class PooledConfig(WeightsConfig):
    """The pooled feature through a two-layer bottleneck: one filter for all positions (D-DWConv)."""

    reduction: int

    def check_values(self) -> None:
        """Refuse a reduction below 1."""
        positive("op.weights.reduction", self.reduction)

    def check(self, region: RegionConfig, slot: Slot) -> None:
        """Refuse a reduction that does not divide the channels."""
        check_reduction(self.reduction, slot)

    def build(self, slot: Slot, heads: int, region: Region) -> PooledWeights:
        """Build the generator."""
        return PooledWeights(self, slot.dim, heads, region)


@dataclass(frozen=True)
class StaticConfig(WeightsConfig):
    """Learned weights that do not depend on the input (convolution)."""

    pointwise: ClassVar[bool] = True

    def build(self, slot: Slot, heads: int, region: Region) -> StaticWeights:
        """Build the generator."""
        return StaticWeights(self, slot.dim, heads, region)


LEVELS: dict[str, type[WeightsConfig]] = {
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
        initialize_transformer(self.expand)

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


def check_reduction(reduction: int, slot: Slot) -> None:
    """Refuse a reduction that does not divide the channels of a slot.

    Raises:
        UserError: names both.
    """
    if slot.dim % reduction:
        raise UserError(
            f"op.weights.reduction={reduction} does not divide the {slot.dim} channels of this slot",
            "choose a divisor",
        )


def check(config: WeightsConfig, region: RegionConfig, slot: Slot) -> None:
    """Refuse weights that cannot exist over a region in a slot.

    Raises:
        UserError: with the reason.
    """
    if isinstance(region, SampledConfig) and config.at_keys:
        raise UserError(
            f"op/weights={config.name} with op/region=sampled: {' and '.join(config.at_keys)} needs the key "
            "at every tap, and a tap that is moved lies between keys",
            "use op/region=neighborhood, weights of the centre feature such as op/weights=linear, or terms "
            "without keys: op.weights.terms=[query_position,bias]",
        )
    config.check(region, slot)
    if isinstance(region, WindowAndPooledConfig) and not config.pointwise:
        raise UserError(
            f"op/weights={config.name} with op/region={region.name}: it looks at neighbors or at statistics "
            "of features, and the tokens of the pooled map would be among them",
            "use op/region=window, or op/weights=linear, pairwise, hadamard, learned_query or static",
        )
