"""Parallel local-global self-attention (PLG-ViT): some heads in windows, the others on the pooled map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ablate.errors import UserError
from ablate.kernels.layout import merge_heads, pool_cells, split_heads
from ablate.ops.axes import Slot, WindowConfig
from ablate.ops.axes.regions import WindowRegion
from ablate.ops.checks import positive
from ablate.ops.registry import register


@register(
    "plg",
    paper="PLG-ViT, Ebert et al.",
    year=2023,
    channel_setting="twice the host's heads, value and output projection",
    spatial_processing="window 7×7 for one half of the heads, 7×7 pooled tokens of the whole map for the "
    "other; q·k; softmax in each",
    equation="y = W_o [ Σ_{j in the window of i} softmax_j( q_i·k_j/√d ) v_j  for the first ⌈G/2⌉ heads;\n"
    "          Σ_p softmax_p( q_i·k'_p/√d ) v'_p  for the others ] + b_o\n"
    "k', v' = W ( mean + maximum of each cell of x ) + b",
    quirks=(
        "our reading: the papers' code is not published, and their text leaves open how means and maxima of "
        "cells are joined, which layers have biases, and whether there are positions; here their sum, all "
        "layers, and none",
        "windows are not shifted: what they do not see, the pooled map shows",
        "a map that windows do not tile is filled up with zeros at its right and bottom, which take part",
    ),
)
class ParallelLocalGlobalAttention(nn.Module):
    """Attention in windows beside attention on a pooled map (Ebert, Stricker & Wasenmüller, Sensors 2023).

    Args:
        dim: channels C.
        heads: each of d = C/heads consecutive channels; the first ⌈heads/2⌉ are local.
        resolution: (H, W), to refuse a window that is larger.
        window: M, side of a window.
        tokens: those of the pooled map along each side; of a smaller map all its positions.

    Raises:
        UserError: fewer than two heads, no window or token, a window larger than the map.
    """

    def __init__(
        self, dim: int, heads: int, resolution: tuple[int, int] | None, *, window: int, tokens: int
    ) -> None:
        positive("op.window", window)
        positive("op.tokens", tokens)
        if heads < 2:
            raise UserError(
                f"{heads} head cannot be local and global",
                "use an even number, e.g. op.heads=2x or op.heads=2",
            )
        if resolution is not None and window > min(resolution):
            raise UserError(
                f"op.window={window}: the window is larger than the map of {resolution[0]}×{resolution[1]}",
                f"use op.window={min(resolution)} or less, or fill earlier stages (host.stages)",
            )
        super().__init__()
        self.local_heads = (heads + 1) // 2
        self.global_heads = heads - self.local_heads
        self.tokens, self.scale = tokens, (dim // heads) ** -0.5
        config, slot = WindowConfig("window", window, "none"), Slot(dim, heads, resolution)
        self.region = WindowRegion(config, slot, "op.window")
        inside, outside = (count * (dim // heads) for count in (self.local_heads, self.global_heads))
        self.query_key_value = nn.Linear(dim, 3 * inside)
        self.global_query = nn.Linear(dim, outside)
        self.global_key_value = nn.Linear(dim, 2 * outside)
        self.output = nn.Linear(dim, dim)
        for layer in (self.query_key_value, self.global_query, self.global_key_value, self.output):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C).

        Raises:
            UserError: a map smaller than the window.
        """
        return self.output(torch.cat([self.local(x), self.everywhere(x)], -1))

    def local(self, x: Tensor) -> Tensor:
        """Attention of the local heads: (B, H, W, C) → (B, H, W, local_heads · d)."""
        groups = self.region.prepare(x)
        query, key, value = self.query_key_value(groups).chunk(3, -1)
        if self.region.attends(groups):
            bias = value.new_zeros(self.local_heads, self.region.offsets)
            y = self.region.attend(query * self.scale, key, value, bias, x.shape)
        else:
            weights = self.region.content(query * self.scale, key, self.local_heads).softmax(-1)
            y = self.region.aggregate(value, weights, None, None, x.shape)
        return self.region.restore(y, x.shape)

    def everywhere(self, x: Tensor) -> Tensor:
        """Attention of the global heads: (B, H, W, C) → (B, H, W, global_heads · d)."""
        height, width = x.shape[1:3]
        grid = min(height, self.tokens), min(width, self.tokens)
        key_value = self.global_key_value(pool_cells(x, grid) + pool_cells(x, grid, "amax"))
        key, value = (split_heads(part, self.global_heads) for part in key_value.chunk(2, -1))
        query = split_heads(self.global_query(x), self.global_heads) * self.scale
        return merge_heads((query @ key.transpose(-1, -2)).softmax(-1) @ value, height, width)

    def extra_repr(self) -> str:
        return (
            f"heads={self.local_heads}+{self.global_heads}, window={self.region.size}, tokens={self.tokens}"
        )
