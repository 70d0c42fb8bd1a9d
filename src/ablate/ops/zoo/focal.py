"""Focal modulation: context of growing neighborhoods, gated and multiplied with a query."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ablate.errors import UserError
from ablate.ops.checks import odd_kernel, positive
from ablate.ops.registry import register


@register(
    "focal",
    paper="FocalNet, Yang et al.",
    year=2022,
    sliding=("kernel",),
    channel_setting="a filter per channel, query, context and output projection",
    spatial_processing="neighborhoods 3×3, 5×5, … one after the other and the whole map; static, gated at "
    "each position; no norm",
    equation="y_i = W_o( q_i ⊙ h( Σ_l g_{l,i} z^l_i + g_{L+1,i} gelu(mean_j z^L_j) ) )\n"
    "z^l = gelu(Conv_{k_l} depthwise(z^{l−1})),  k_l = k + growth · (l − 1)\n"
    "q, z^0, g = W x   (a gate per level and position)",
    quirks=(
        "gates are linear and signed: neither a sigmoid nor a softmax over the levels",
        "the mean over the map is taken of the last level, after its GELU",
        "op.divide=true divides the context by the number of levels, op.norm=true adds a layer norm before "
        "the output projection; the released classification models of sizes tiny to base do neither",
        "FocalNet has two (op.levels=2, SRF) or three levels (op.levels=3, LRF)",
    ),
)
class FocalModulation(nn.Module):
    """Focal modulation (Yang et al., NeurIPS 2022): a query times a context that is summed before they meet.

    Linear layers begin as in a transformer, convolutions (the 1×1 convolution h too) as PyTorch's.

    Args:
        dim: channels C.
        kernel: k of the first level, odd.
        levels: L, depthwise convolutions one after the other.
        growth: by which the kernel of a level is larger than that of the one before, even.
        divide: divide the context by L + 1.
        norm: normalize each position before the output projection.

    Raises:
        UserError: an even kernel, an odd growth, no level.
    """

    def __init__(self, dim: int, *, kernel: int, levels: int, growth: int, divide: bool, norm: bool) -> None:
        odd_kernel("op.kernel", kernel)
        positive("op.levels", levels)
        positive("op.growth", growth)
        if growth % 2:
            raise UserError(
                f"op.growth={growth} is odd: every second level would have an even kernel",
                f"use {growth + 1}",
            )
        super().__init__()
        self.split = [dim, dim, levels + 1]
        self.divisor = levels + 1 if divide else 1
        self.query_context_gates = nn.Linear(dim, sum(self.split))
        self.contexts = nn.ModuleList(
            nn.Conv2d(dim, dim, size, padding=size // 2, groups=dim, bias=False)
            for size in range(kernel, kernel + growth * levels, growth)
        )
        self.modulator = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim) if norm else nn.Identity()
        self.output = nn.Linear(dim, dim)
        for layer in (self.query_context_gates, self.output):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        query, context, gates = self.query_context_gates(x).split(self.split, -1)
        return self.output(self.norm(query * self.modulator(self.summed(context, gates))))

    def summed(self, context: Tensor, gates: Tensor) -> Tensor:
        """Contexts of all levels and of the map, times their gates: (B, H, W, C), (B, H, W, L + 1)."""
        level, found = context.permute(0, 3, 1, 2), []  # (B, C, H, W)
        for convolution in self.contexts:
            level = F.gelu(convolution(level))
            found.append(level)
        found.append(F.gelu(level.mean((2, 3), keepdim=True)))
        by_level = gates.unsqueeze(-1).unbind(-2)  # (B, H, W, 1) each
        terms = [gate * part.permute(0, 2, 3, 1) for gate, part in zip(by_level, found, strict=True)]
        return sum(terms[1:], start=terms[0]) / self.divisor

    def extra_repr(self) -> str:
        return f"levels={len(self.contexts)}, divisor={self.divisor}"
