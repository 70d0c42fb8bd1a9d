"""Recursive atrous self-attention (LVT): global attention whose queries see several neighborhoods."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.errors import UserError
from ablate.kernels.layout import merge_heads, split_heads
from ablate.ops.checks import odd_kernel, positive
from ablate.ops.registry import register
from ablate.ops.zoo.reduction import reduced, refuse_smaller


@register(
    "rasa",
    paper="LVT, Yang et al.",
    year=2022,
    sliding=("kernel",),
    channel_setting="the host's heads, value and output projection",
    spatial_processing="whole map at 7×7 keys, twice; q·k, q of neighborhoods at three dilations; softmax",
    equation="y_1 = silu(A(x)),  y_{m+1} = silu(A(x + y_1 + … + y_m));  depth 1: y = A(x)\n"
    "A(u)_i = W_o Σ_j softmax_j( q_i·k_j/√d ) v_j   (j on the reduced map)\n"
    "q = Σ_ρ silu( Conv_3×3 depthwise, dilation ρ(W_q u) ),  k, v = W_kv LN( Conv_s×s, stride s(u) )",
    quirks=(
        "one depthwise kernel for all dilations, and the same weights in every recursion",
        "the last SiLU is part of the operator, so that its output is hardly negative",
        "rows and columns that the reduction does not fill are left out of the keys",
        "LVT reduces by 8, 4, 2 and 1 in its stages, always to 7×7 keys at 224×224: op.reduction=L/7 does so "
        "by the map's longer side; a number is the same everywhere",
    ),
)
class RecursiveAtrousSelfAttention(nn.Module):
    """RASA (Yang et al., CVPR 2022).

    Args:
        dim: channels C.
        heads: each of C/heads consecutive channels.
        resolution: (H, W), which `reduction=L/n` needs.
        kernel: of the depthwise convolution of queries, odd.
        rates: its dilations.
        reduction: s, distance of keys; `L/n`: ⌊longer side / n⌋, at least 1.
        depth: number of recursions.

    Raises:
        UserError: an even kernel, no rate, a reduction of another form or larger than the map.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        resolution: tuple[int, int] | None,
        *,
        kernel: int,
        rates: list[int],
        reduction: int | str,
        depth: int,
    ) -> None:
        odd_kernel("op.kernel", kernel)
        _check_rates(rates)
        positive("op.depth", depth)
        super().__init__()
        self.heads, self.rates, self.depth = heads, tuple(rates), depth
        self.kernel, self.reduction = kernel, reduced(reduction, resolution)
        self.query = nn.Linear(dim, dim, bias=False)
        self.atrous = nn.Parameter(torch.empty(dim, 1, kernel, kernel))
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.output = nn.Linear(dim, dim)
        self.reduce, self.norm = None, None
        if self.reduction > 1:
            self.reduce = nn.Conv2d(dim, dim, self.reduction, stride=self.reduction)
            self.norm = nn.LayerNorm(dim)
            nn.init.normal_(self.reduce.weight, std=math.sqrt(2 / (self.reduction**2 * dim)))
            assert self.reduce.bias is not None
            nn.init.zeros_(self.reduce.bias)
        for layer in (self.query, self.key_value, self.output):
            nn.init.trunc_normal_(layer.weight, std=0.02)
        nn.init.zeros_(self.output.bias)
        nn.init.kaiming_uniform_(self.atrous)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C).

        Raises:
            UserError: a map smaller than the reduction.
        """
        refuse_smaller(x.shape, self.reduction, "key")
        if self.depth == 1:
            return self.attend(x)
        y = F.silu(self.attend(x))
        for _ in range(1, self.depth):
            x = x + y
            y = F.silu(self.attend(x))
        return y

    def attend(self, x: Tensor) -> Tensor:
        """One attention: (B, H, W, C) → (B, H, W, C)."""
        height, width = x.shape[1:3]
        query = split_heads(self.queries(x), self.heads)
        key, value = (split_heads(part, self.heads) for part in self.key_value(self.sources(x)).chunk(2, -1))
        if torch.are_deterministic_algorithms_enabled():  # gradients of the fused form may differ on a GPU
            logits = (query * (query.shape[-1] ** -0.5)) @ key.transpose(-1, -2)
            y = logits.softmax(-1) @ value
        else:
            y = F.scaled_dot_product_attention(query, key, value)
        return self.output(merge_heads(y, height, width))

    def queries(self, x: Tensor) -> Tensor:
        """Queries that have seen their neighborhoods at every rate: (B, H, W, C) → (B, H, W, C)."""
        images, found = self.query(x).permute(0, 3, 1, 2), []
        for rate in self.rates:
            padding = rate * (self.kernel // 2)
            convolved = F.conv2d(images, self.atrous, None, 1, padding, rate, images.shape[1])
            found.append(F.silu(convolved))
        return sum(found[1:], start=found[0]).permute(0, 2, 3, 1)

    def sources(self, x: Tensor) -> Tensor:
        """The features that keys and values are made of: (B, H, W, C) → (B, ⌊H/s⌋, ⌊W/s⌋, C)."""
        if self.reduce is None or self.norm is None:
            return x
        return self.norm(self.reduce(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))

    def extra_repr(self) -> str:
        return f"heads={self.heads}, rates={list(self.rates)}, reduction={self.reduction}, depth={self.depth}"


def _check_rates(rates: Sequence[int]) -> None:
    if not rates:
        raise UserError("op.rates=[]: queries need one dilation", "use [1, 3, 5]")
    for rate in rates:
        positive("op.rates", rate)
