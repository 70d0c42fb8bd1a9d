"""The channel setting: heads, ghost head, and the linear layers before and after the sum."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ablate.configuration import read_settings
from ablate.errors import UserError, unknown
from ablate.ops.axes.learned_query import lecun_normal_
from ablate.ops.axes.regions import Region

PROJECTIONS = ("linear", "linear_no_bias", "identity")
OUTPUTS = (*PROJECTIONS, "batch_norm_skip")
INITIALIZATIONS = ("transformer", "convolution", "lecun")


@dataclass(frozen=True)
class Channel:
    """Channel setting: how many distinct filters there are over the channels, and the layers around them."""

    heads: str
    ghost_lambda: int
    ghost_gamma: float
    value: str
    value_initialization: str
    output: str
    bias: bool


class GhostHead(nn.Module):
    """ELSA's ghost head: from a head's filter to one per channel by static tables o and s.

    λ = 0 leaves out the multiplication, γ = 0 the addition; the tables are then not made.
    """

    def __init__(self, dim: int, region: Region, ghost_lambda: int, ghost_gamma: float) -> None:
        super().__init__()
        self.ghost_lambda, self.ghost_gamma = ghost_lambda, ghost_gamma
        self.multiply: nn.Parameter | None = None
        self.add: nn.Parameter | None = None
        if ghost_lambda:
            self.multiply = nn.Parameter(torch.randn(dim, region.offsets))
        if ghost_gamma:
            self.add = nn.Parameter(nn.init.trunc_normal_(torch.empty(dim, region.offsets), std=0.02))

    def forward(self) -> tuple[Tensor | None, Tensor | None]:
        """o^λ and γ·s, (C, offsets); None for what is left out."""
        multiply = add = None
        if self.multiply is not None:
            multiply = self.multiply**self.ghost_lambda
        if self.add is not None:
            add = self.ghost_gamma * self.add
        return multiply, add

    def extra_repr(self) -> str:
        return f"lambda={self.ghost_lambda}, gamma={self.ghost_gamma}"


class BatchNormSkip(nn.Module):
    """BN(y) + x: the output of LS convolution (Wang et al., 2025)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(dim)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        """Two maps (B', H', W', C) → (B', H', W', C)."""
        normal: Tensor = self.norm(y.flatten(0, 2))
        return normal.unflatten(0, y.shape[:3]) + x.to(normal.dtype)


def read(config: Any) -> Channel:
    """Read the channel setting; λ is checked first, because the reason explains more."""
    if isinstance(config, Mapping) and "ghost_lambda" in config:
        config = {**config, "ghost_lambda": _whole_lambda(config["ghost_lambda"])}
    return read_settings(Channel, "op.channel", config)


def _whole_lambda(value: Any) -> int:
    whole = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not whole or value < 0 or value != int(value):
        raise UserError(
            f"op.channel.ghost_lambda={value!r}: o^λ of a negative entry of o is not a number unless λ is a "
            "whole number, and about half of the entries are negative",
            "choose λ = 0 (no multiplication), 1 or 2",
        )
    return int(value)


def check_values(config: Channel) -> None:
    """Refuse projections and initialisations that do not exist.

    Raises:
        UserError: names the setting.
    """
    for name, possible in (("value", PROJECTIONS), ("output", OUTPUTS)):
        if getattr(config, name) not in possible:
            raise unknown(f"op.channel.{name}", getattr(config, name), possible)
    if config.value_initialization not in INITIALIZATIONS:
        raise unknown("op.channel.value_initialization", config.value_initialization, INITIALIZATIONS)


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


def projection(kind: str, dim: int, initialization: str) -> nn.Module:
    """Build one of `OUTPUTS`; a linear layer is initialised as in a transformer, a convolution, or Flax."""
    if kind == "batch_norm_skip":
        return BatchNormSkip(dim)
    if kind == "identity":
        return nn.Identity()
    linear = nn.Linear(dim, dim, bias=kind == "linear")
    if initialization == "lecun":
        lecun_normal_(linear.weight)
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)
    if initialization == "transformer":
        nn.init.trunc_normal_(linear.weight, std=0.02)
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)
    return linear  # else as PyTorch initialises it, which is its 1×1 convolution's initialisation too
