"""AttnConv beside attention on a pooled map (CloFormer)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ablate.errors import UserError
from ablate.kernels.layout import average_pool, split_heads
from ablate.ops.axes.hadamard_gate import GatedProduct
from ablate.ops.checks import odd_kernel, positive
from ablate.ops.registry import register


class AttnConv(nn.Module):
    """tanh(M(q_i⊙k_i)/√d) ⊙ Σ_Δ o_Δ v_{i+Δ}, with q, k and the sum from one depthwise convolution."""

    def __init__(self, dim: int, inner: int, width: int, kernel: int) -> None:
        super().__init__()
        self.query_key_value = nn.Linear(dim, 3 * inner)
        self.look = nn.Conv2d(3 * inner, 3 * inner, kernel, padding=kernel // 2, groups=3 * inner)
        self.gate = GatedProduct(inner, inner, width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, channels of its heads)."""
        seen = self.look(self.query_key_value(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        query, key, values = seen.chunk(3, dim=-1)
        gain: Tensor = self.gate(query * key)
        return gain.tanh() * values


class PooledAttention(nn.Module):
    """Attention of every position to the means of blocks of the map, `grid` blocks along its shorter side."""

    def __init__(self, dim: int, heads: int, width: int, grid: int) -> None:
        super().__init__()
        self.heads, self.grid, self.scale = heads, grid, width**-0.5
        self.query, self.key_value = nn.Linear(dim, heads * width), nn.Linear(dim, 2 * heads * width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, channels of its heads)."""
        block = -(-min(x.shape[1:3]) // self.grid)
        key, value = self.key_value(average_pool(x, block)).chunk(2, dim=-1)
        query, key, value = (split_heads(part, self.heads) for part in (self.query(x), key, value))
        attention = (query * self.scale @ key.transpose(-1, -2)).softmax(-1)  # (B, heads, H·W, blocks)
        y = attention.to(value.dtype) @ value
        return y.transpose(1, 2).flatten(2).unflatten(1, x.shape[1:3])


@register(
    "attn_conv",
    paper="CloFormer, Fan et al.",
    year=2023,
    sliding=("kernel",),
    channel_setting="a filter per channel; other heads attend to a pooled map; value and output projection",
    spatial_processing="neighborhood 3×3, static filters × tanh of q⊙k through two layers, no norm; "
    "beside it the pooled map, q·k, softmax",
    equation=(
        "y = W [ tanh( M(q_i⊙k_i)/√d ) ⊙ Σ_Δ o_Δ v_{i+Δ} ; Σ_p softmax_p( q'_i·k'_p/√d ) v'_p ]\n"
        "q, k: depthwise convolutions too; M: 1×1, SiLU, 1×1; p: blocks of the map, averaged"
    ),
    quirks=(
        "a position scales its static filter and does not form it: gains are in (−1, 1), and nothing "
        "normalizes them over taps",
        "the first branch alone is a point of the equation, but for the bias of its convolution: "
        "op/weights=hadamard_gate op/norm=tanh op.channel.heads=C op.channel.ghost_lambda=1",
        "⌊heads · pooled_share⌋ heads attend to the pooled map; published are kernels 3, 5, 7, 9 in the four "
        "stages, and blocks of 8, 4, 2, 1 positions at 224×224, which are 7 blocks a side in all",
        "blocks at the right and bottom may be cut off by the map; the authors' code needs maps that the "
        "block divides",
    ),
)
class CloFormerAttention(nn.Module):
    """Attention of CloFormer (Fan et al., 2023): AttnConv, and other heads that attend to a pooled map.

    Args:
        dim: channels C.
        heads: of both branches together, C/heads channels each; those of AttnConv come first.
        kernel: K of AttnConv, odd.
        branches: `both`, or one of the two for all heads.
        pooled_share: share of the heads that attend to the pooled map, rounded down.
        grid: blocks of the pooled map along the shorter side.

    Raises:
        UserError: an even kernel, a share that is not between 0 and 1.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        kernel: int,
        branches: Literal["both", "attn_conv", "pooled"],
        pooled_share: float,
        grid: int,
    ) -> None:
        odd_kernel("op.kernel", kernel)
        positive("op.grid", grid)
        positive("op.pooled_share", pooled_share)
        if pooled_share > 1:
            raise UserError(
                f"op.pooled_share={pooled_share} is not a share of the heads", "use a number up to 1"
            )
        super().__init__()
        shares = {"both": int(heads * pooled_share), "attn_conv": 0, "pooled": heads}
        low, width = shares[branches], dim // heads
        self.convolution = AttnConv(dim, (heads - low) * width, width, kernel) if low < heads else None
        self.attention = PooledAttention(dim, low, width, grid) if low else None
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        parts = [branch(x) for branch in (self.convolution, self.attention) if branch is not None]
        y: Tensor = self.output(torch.cat(parts, dim=-1))
        return y
