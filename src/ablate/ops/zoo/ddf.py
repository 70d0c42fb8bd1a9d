"""Decoupled dynamic filters."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from ablate import kernels
from ablate.errors import UserError
from ablate.ops.axes.norms import filter_norm
from ablate.ops.checks import odd_kernel, positive
from ablate.ops.registry import RESNET, register


@register(
    "ddf",
    paper="DDF, Zhou et al.",
    year=2021,
    sliding=("kernel",),
    host=RESNET,
    channel_setting="a filter per channel and image × 1 head, no projections",
    spatial_processing="neighborhood 3×3; centre feature, linear × pooled feature, bottleneck; filter-norm",
    equation=(
        "y_i[c] = Σ_Δ D_Δ[c] · S_Δ[i, g(c)] · x_{i+Δ}[c]   (combination=add: D + S)\n"
        "S[i] = √2/K · n(W x_i + b)   (a filter per head and position)\n"
        "D = s ⊙ n(W₂ relu(W₁ mean_i(x_i) + b₁) + b₂)   (a filter per channel and image)\n"
        "n: filter-norm, mean 0 and standard deviation 1 over the taps"
    ),
    quirks=(
        "the scale s is learned and starts as normal(0, σ = √2/K), sign included: half of the channel "
        "filters' taps start turned over; it is not weight-decayed, being a vector in the authors' code",
        "with a stride, spatial filters result from every stride-th position, not from its block's mean; "
        "the authors' code takes maps that the stride divides, here others give ⌈H/stride⌉ rows",
        "alone, it keeps PyTorch's initialisation; in DDF-ResNet the network's own loop follows and makes "
        "the weights of both branches kaiming-normal (fan-out)",
    ),
    strides=(1, 2),
)
class DDF(nn.Module):
    """Decoupled dynamic filter (Zhou et al., CVPR 2021): a filter per position times one per channel.

    Args:
        dim: channels C.
        heads: spatial filters at every position, for contiguous blocks of channels.
        stride: of the output positions.
        kernel: K, odd, 3 or more.
        combination: `mul` or `add`, how the two filters meet.
        squeeze: hidden channels of the channel branch are ⌊C · squeeze⌋.

    Raises:
        UserError: an even kernel or a single tap; no hidden channel left.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        stride: int,
        kernel: int,
        combination: Literal["mul", "add"],
        squeeze: float,
    ) -> None:
        odd_kernel("op.kernel", kernel)
        positive("op.squeeze", squeeze)
        hidden = int(dim * squeeze)
        if kernel == 1:
            raise UserError(
                "op.kernel=1: the filter-norm's standard deviation needs two taps", "use 3 or more"
            )
        if hidden < 1:
            raise UserError(
                f"op.squeeze={squeeze} leaves no hidden channel of the {dim} channels of this slot",
                f"use a share above 1/{dim}",
            )
        super().__init__()
        self.heads, self.stride, self.kernel, self.combination = heads, stride, kernel, combination
        self.taps, self.gain = kernel**2, math.sqrt(2) / kernel
        self.spatial = nn.Linear(dim, heads * self.taps)
        self.reduce = nn.Linear(dim, hidden)
        self.expand = nn.Linear(hidden, dim * self.taps)
        self.scale = nn.Parameter(self.gain * torch.randn(dim, self.taps))

    def no_weight_decay(self) -> set[str]:
        """The scale, which is a vector in the authors' code."""
        return {"scale"}

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, ⌈H / stride⌉, ⌈W / stride⌉, C)."""
        spatial, channel = self.spatial_filters(x), self.channel_filters(x)
        multiplied = self.combination == "mul"
        return kernels.aggregate(
            x,
            spatial,
            kernel=self.kernel,
            stride=self.stride,
            multiply=channel if multiplied else None,
            add=None if multiplied else channel,
        )

    def spatial_filters(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H', W', heads, K²)."""
        centres = x[:, :: self.stride, :: self.stride]
        return filter_norm(self.spatial(centres).unflatten(-1, (self.heads, self.taps)), None)

    def channel_filters(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, C, K²)."""
        logits = self.expand(self.reduce(x.mean((1, 2))).relu())
        filters = filter_norm(logits.unflatten(-1, (-1, self.taps)), None)
        return filters * (self.scale / self.gain)  # the learned scale instead of the norm's own

    def extra_repr(self) -> str:
        return (
            f"heads={self.heads}, kernel={self.kernel}, stride={self.stride}, combination={self.combination}"
        )
