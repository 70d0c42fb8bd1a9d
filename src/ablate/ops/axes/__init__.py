"""The two axes of an operator as typed configuration, checked before anything is built.

    y_i[c] = Σ_j  F_ij[c] · v_j[c]
    F_ij[c] = (o_Δ[c])^λ · Norm_j( A_ij[g(c)] )  +  γ · s_Δ[c]

One module per group of settings. *Channel setting*: `channel` (heads, ghost head λ and γ, value and output
projection).
*Spatial processing*: `weights` (what generates A), `norms` and `regions` (with their borders). Each module
has the typed configuration of its group, the checks, and the module that computes it. Defaults are in
`conf/op/`.
`parse` reads a configuration, `check` refuses what cannot exist in a slot. May import `ablate.kernels`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablate.configuration import read_settings
from ablate.errors import UserError, unknown
from ablate.ops.axes import channel, norms, regions, weights
from ablate.ops.axes.channel import INITIALIZATIONS, OUTPUTS, PROJECTIONS, Channel, resolve_heads
from ablate.ops.axes.hadamard_gate import HadamardGateConfig
from ablate.ops.axes.learned_query import GAINS, LearnedQueryConfig
from ablate.ops.axes.level import WeightsConfig
from ablate.ops.axes.norms import ELEMENTWISE, NormConfig
from ablate.ops.axes.pairs import TERMS, HadamardConfig, PairwiseConfig
from ablate.ops.axes.pooled_affinity import PooledAffinityConfig
from ablate.ops.axes.regions import (
    ALTERNATE,
    BORDERS,
    SHIFTS,
    NeighborhoodConfig,
    RegionConfig,
    WindowAndPooledConfig,
    WindowConfig,
)
from ablate.ops.axes.weights import (
    BottleneckConfig,
    HadamardConvConfig,
    LinearConfig,
    PooledConfig,
    StaticConfig,
)
from ablate.ops.axes.wide_conv import WideConvConfig
from ablate.ops.slot import Slot

__all__ = [
    "ALTERNATE",
    "AXES",
    "BORDERS",
    "ELEMENTWISE",
    "GAINS",
    "INITIALIZATIONS",
    "LEVELS",
    "OUTPUTS",
    "PROJECTIONS",
    "SHIFTS",
    "TERMS",
    "BottleneckConfig",
    "Channel",
    "HadamardConfig",
    "HadamardConvConfig",
    "HadamardGateConfig",
    "LearnedQueryConfig",
    "LinearConfig",
    "NeighborhoodConfig",
    "NormConfig",
    "OperatorConfig",
    "PairwiseConfig",
    "PooledAffinityConfig",
    "PooledConfig",
    "RegionConfig",
    "Slot",
    "StaticConfig",
    "WeightsConfig",
    "WideConvConfig",
    "WindowAndPooledConfig",
    "WindowConfig",
    "check",
    "parse",
    "resolve_heads",
]

AXES = ("channel", "weights", "norm", "region")
LEVELS: dict[str, Mapping[str, type]] = {
    "region": regions.LEVELS,
    "weights": weights.LEVELS,
    "norm": norms.LEVELS,
}


@dataclass(frozen=True)
class OperatorConfig:
    """One point in the space of operators."""

    name: str
    channel: Channel
    weights: WeightsConfig
    norm: NormConfig
    region: RegionConfig


def parse(config: Mapping[str, Any]) -> OperatorConfig:
    """Read an operator's configuration.

    Raises:
        UserError: an unknown axis, level or key, a missing key, a value of the wrong type or out
            of its range. Says what was given and what is possible.
    """
    for key in config:
        if key not in ("name", *AXES):
            raise unknown("operator setting", key, ("name", *AXES))
    missing = [key for key in ("name", *AXES) if key not in config]
    if missing:
        raise UserError(f"the operator has no {missing[0]!r}", "start from a preset of `ablate ops`")
    parsed = OperatorConfig(
        name=str(config["name"]),
        channel=channel.read(config["channel"]),
        weights=_level("weights", config["weights"]),
        norm=_level("norm", config["norm"]),
        region=_level("region", config["region"]),
    )
    channel.check_values(parsed.channel)
    parsed.region.check_values()
    parsed.weights.check_values()
    return parsed


def check(config: OperatorConfig, slot: Slot) -> None:
    """Refuse what cannot exist in this slot, with the reason, before anything is built.

    Raises:
        UserError: the first reason found.
    """
    resolve_heads(config.channel.heads, slot.dim, slot.heads)
    region = config.region.at(slot)
    weights.check(config.weights, region, slot)
    if isinstance(config.weights, HadamardGateConfig):
        config.weights.check_norm(config.norm)
    if config.norm.name == "filter_norm" and region.taps(slot) == 1:
        raise UserError(
            "op/norm=filter_norm over a single tap: a standard deviation needs two",
            "use a larger region or op/norm=identity",
        )
    terms = getattr(config.weights, "terms", ())
    if isinstance(region, WindowAndPooledConfig) and (
        "decay" in terms or config.norm.name == "softmax_decay"
    ):
        raise UserError(
            f"a static decay with op/region={region.name}: tokens of the pooled map have no distance",
            "use op/region=window, or op/norm=softmax without the term decay",
        )
    region.check(slot)
    _check_groups(config, slot)


def _check_groups(config: OperatorConfig, slot: Slot) -> None:
    """Refuse offsets of groups that cut through heads, or heads that cut through groups."""
    if isinstance(config.region, regions.SampledConfig):
        heads, groups = resolve_heads(config.channel.heads, slot.dim, slot.heads), config.region.groups
        if max(heads, groups) % min(heads, groups):
            raise UserError(
                f"op.region.groups={groups} with {heads} heads: neither divides the other",
                f"use op.region.groups=1 or {heads}",
            )


def _level(axis: str, config: Any) -> Any:
    levels = LEVELS[axis]
    if not isinstance(config, Mapping) or "name" not in config:
        raise UserError(
            f"op.{axis}={config!r} is not a level of this axis",
            f"choose one with op/{axis}={'|'.join(levels)}",
        )
    name = str(config["name"])
    if name not in levels:
        raise unknown(f"level of op/{axis}", name, levels)
    return read_settings(levels[name], f"op.{axis}", config)
