"""The two axes of an operator as typed configuration, checked before anything is built.

    y_i[c] = Σ_j  F_ij[c] · v_j[c]
    F_ij[c] = (o_Δ[c])^λ · Norm_j( A_ij[g(c)] )  +  γ · s_Δ[c]

*Channel setting* (heads, ghost head λ and γ, value and output projection) and *spatial
processing* (what generates the weights A, the norm, the region with its border). Defaults live in
`conf/op/`, not here: this module knows types, ranges and which combinations can exist. It imports
no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablate import settings
from ablate.errors import UserError, unknown
from ablate.ops.checks import kernel_fits, odd_kernel, positive

TERMS = ("content", "query_position", "key_position", "bias")
BORDERS = ("zero", "mask", "inside")
PROJECTIONS = ("linear", "linear_no_bias", "identity")
INITIALIZATIONS = ("transformer", "convolution")
SHIFTS = ("alternate", "none")


@dataclass(frozen=True)
class Slot:
    """A place in a host that an operator fills.

    `heads` is the host's own number of heads (what `1x` means), `resolution` its map in the
    host's build (None if any), `stride` that of the replaced layer, `index` the block's place
    within its stage (shifted windows alternate with it).
    """

    dim: int
    heads: int
    resolution: tuple[int, int] | None = None
    stride: int = 1
    index: int = 0


@dataclass(frozen=True)
class Channel:
    """Channel setting: how many distinct filters there are over the channels, and what surrounds them."""

    heads: str
    ghost_lambda: int
    ghost_gamma: float
    value: str
    value_initialization: str
    output: str
    bias: bool


@dataclass(frozen=True)
class Window:
    """Non-overlapping windows of size², shifted by half in odd blocks (Swin)."""

    name: str
    size: int
    shift: str


@dataclass(frozen=True)
class Neighborhood:
    """The kernel² positions around each position, `dilation` apart."""

    name: str
    kernel: int
    dilation: int
    border: str


@dataclass(frozen=True)
class Global:
    """The whole map."""

    name: str


@dataclass(frozen=True)
class Pairwise:
    """A_ij from any subset of q·k, q·r^k, r^q·k and r^b."""

    name: str
    terms: tuple[str, ...]
    scale: float | None
    bias: bool


@dataclass(frozen=True)
class Hadamard:
    """The same terms on u = q⊙k in the place of both query and key (ELSA's equation)."""

    name: str
    terms: tuple[str, ...]
    scale: float | None
    bias: bool


@dataclass(frozen=True)
class HadamardConv:
    """u = q⊙k through a grouped K×K convolution, GELU and a 1×1 convolution (ELSA's code)."""

    name: str
    group_width: int
    scale: float
    bias: bool


@dataclass(frozen=True)
class Bottleneck:
    """The centre feature through a two-layer bottleneck (involution)."""

    name: str
    reduction: int
    reduce_bias: bool


@dataclass(frozen=True)
class Linear:
    """The centre feature through one linear layer (dynamic filter)."""

    name: str


@dataclass(frozen=True)
class Pooled:
    """The pooled feature through a two-layer bottleneck: one filter for all positions (D-DWConv)."""

    name: str
    reduction: int


@dataclass(frozen=True)
class Static:
    """Learned weights that do not depend on the input (convolution)."""

    name: str


@dataclass(frozen=True)
class Norm:
    """Normalisation of the weights over the taps."""

    name: str


Region = Window | Neighborhood | Global
Weights = Pairwise | Hadamard | HadamardConv | Bottleneck | Linear | Pooled | Static

LEVELS: dict[str, dict[str, type]] = {
    "region": {"window": Window, "neighborhood": Neighborhood, "global": Global},
    "weights": {
        "pairwise": Pairwise,
        "hadamard": Hadamard,
        "hadamard_conv": HadamardConv,
        "bottleneck": Bottleneck,
        "linear": Linear,
        "pooled": Pooled,
        "static": Static,
    },
    "norm": {"softmax": Norm, "filter_norm": Norm, "identity": Norm},
}
AXES = ("channel", "weights", "norm", "region")


@dataclass(frozen=True)
class OperatorConfig:
    """One point in the space of operators."""

    name: str
    channel: Channel
    weights: Weights
    norm: Norm
    region: Region


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
        channel=_channel(config["channel"]),
        weights=_level("weights", config["weights"]),
        norm=_level("norm", config["norm"]),
        region=_level("region", config["region"]),
    )
    _check_values(parsed)
    return parsed


def resolve_heads(heads: str, dim: int, host_heads: int, path: str = "op.channel.heads") -> int:
    """Number of distinct filters: `1`, `1x`, `2x`, an integer, `C`, or `C/n` (a filter every n channels).

    `path` is the setting's name in messages.

    Raises:
        UserError: not one of these forms, or the result does not divide `dim`.
    """
    way_out = "use an integer, '1x' or '2x' (multiples of the host's heads), 'C' or 'C/16'"
    if match := re.fullmatch(r"(\d+)x", heads):
        count = int(match[1]) * host_heads
    elif match := re.fullmatch(r"C(?:/(\d+))?", heads):
        width = int(match[1] or 1)
        if width < 1 or dim % width:
            raise UserError(f"{path}={heads}: {width} does not divide the {dim} channels", way_out)
        count = dim // width
    elif re.fullmatch(r"\d+", heads):
        count = int(heads)
    else:
        raise UserError(f"{path}={heads} is not a number of heads", way_out)
    if count < 1 or dim % count:
        divisors = ", ".join(str(n) for n in range(1, dim + 1) if dim % n == 0)
        raise UserError(
            f"{path}={heads}: {count} heads do not divide the {dim} channels of this slot",
            f"possible numbers of heads: {divisors}",
        )
    return count


def check(config: OperatorConfig, slot: Slot) -> None:
    """Refuse what cannot exist in this slot, with the reason, before anything is built.

    Raises:
        UserError: the first reason found.
    """
    resolve_heads(config.channel.heads, slot.dim, slot.heads)
    region, weights = config.region, config.weights
    if isinstance(weights, HadamardConv) and not isinstance(region, Neighborhood):
        raise UserError(
            f"op/weights=hadamard_conv with op/region={region.name}: its K×K convolution makes one weight "
            "for each tap of a sliding neighbourhood; a window's positions have no common taps",
            "use op/region=neighborhood, or op/weights=hadamard, which works in every region",
        )
    if isinstance(weights, (Bottleneck, Pooled)) and slot.dim % weights.reduction:
        raise UserError(
            f"op.weights.reduction={weights.reduction} does not divide the {slot.dim} channels of this slot",
            "choose a divisor",
        )
    if config.norm.name == "filter_norm" and _taps(region, slot) == 1:
        raise UserError(
            "op/norm=filter_norm over a single tap: a standard deviation needs two",
            "use a larger region or op/norm=identity",
        )
    if isinstance(region, Global) and slot.resolution is None:
        raise UserError(
            "op/region=global needs to know the map: its relative positions are learned for one size",
            "give resolution=(height, width)",
        )
    if slot.resolution is not None:
        _check_resolution(region, slot.resolution)


def check_neighborhood(region: Neighborhood, resolution: tuple[int, int], path: str = "op.region") -> None:
    """Refuse a neighbourhood that is too large for a map; `path` is where its settings are.

    Raises:
        UserError: see `checks.kernel_fits`.
    """
    kernel_fits(
        f"{path}.kernel",
        region.kernel,
        region.dilation,
        region.border,
        resolution,
        dilation_path=f"{path}.dilation",
    )


def _check_resolution(region: Region, resolution: tuple[int, int]) -> None:
    height, width = resolution
    if isinstance(region, Neighborhood):
        check_neighborhood(region, resolution)
    shortest = min(resolution)
    if isinstance(region, Window) and region.size > shortest:
        raise UserError(
            f"op.region.size={region.size}: the window is larger than the map of {height}×{width}",
            f"use op.region.size={shortest} or less, op/region=global, or fill earlier stages (host.stages)",
        )


def _taps(region: Region, slot: Slot) -> int:
    if isinstance(region, Neighborhood):
        return region.kernel**2
    if isinstance(region, Window):
        return region.size**2
    height, width = slot.resolution or (2, 2)
    return height * width


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
    return settings.read(levels[name], f"op.{axis}", config)


def _channel(config: Any) -> Channel:
    """λ is checked before its type: that it is whole has a reason worth telling."""
    if isinstance(config, Mapping) and "ghost_lambda" in config:
        config = {**config, "ghost_lambda": _whole_lambda(config["ghost_lambda"])}
    return settings.read(Channel, "op.channel", config)


def _whole_lambda(value: Any) -> int:
    whole = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not whole or value < 0 or value != int(value):
        raise UserError(
            f"op.channel.ghost_lambda={value!r}: o^λ of a negative entry of o is not a number unless λ is a "
            "whole number, and about half of the entries are negative",
            "choose λ = 0 (no multiplication), 1 or 2",
        )
    return int(value)


def _check_values(config: OperatorConfig) -> None:
    channel, region, weights = config.channel, config.region, config.weights
    for name in ("value", "output"):
        if getattr(channel, name) not in PROJECTIONS:
            raise unknown(f"op.channel.{name}", getattr(channel, name), PROJECTIONS)
    if channel.value_initialization not in INITIALIZATIONS:
        raise unknown("op.channel.value_initialization", channel.value_initialization, INITIALIZATIONS)
    if isinstance(region, Window):
        positive("op.region.size", region.size)
        if region.shift not in SHIFTS:
            raise unknown("op.region.shift", region.shift, SHIFTS)
    if isinstance(region, Neighborhood):
        odd_kernel("op.region.kernel", region.kernel)
        positive("op.region.dilation", region.dilation)
        if region.border not in BORDERS:
            raise unknown("op.region.border", region.border, BORDERS)
    if isinstance(weights, (Pairwise, Hadamard)):
        for term in weights.terms:
            if term not in TERMS:
                raise unknown("term of op.weights.terms", term, TERMS)
        if not weights.terms or len(set(weights.terms)) != len(weights.terms):
            raise UserError(
                f"op.weights.terms={list(weights.terms)}: give each term once, and at least one",
                f"terms: {', '.join(TERMS)}",
            )
    if isinstance(weights, HadamardConv):
        positive("op.weights.group_width", weights.group_width)
    if isinstance(weights, (Bottleneck, Pooled)):
        positive("op.weights.reduction", weights.reduction)
