"""Slide attention (Pan et al., 2023): neighbours gathered by depthwise convolutions, fixed plus learned."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.ops.checks import odd_kernel
from ablate.ops.registry import register


@register(
    "slide",
    paper="Slide-Transformer, Pan et al.",
    year=2023,
    channel_setting="the host's heads, value and output projection",
    spatial_processing="neighborhood 3×3, border zero, shifts plus a learned convolution; q·(k + b); softmax",
    equation="y_i = Σ_t softmax_t( q_i·(k_{i,t} + b_t)/√d ) v_{i,t}\n"
    "k_{·,t} = (shift_t + w_t) * k,  v_{·,t} = (shift_t + w_t) * v     w shared by heads, keys and values",
    quirks=(
        "b stands inside the product with q: its effect is b · Σ_c q_c, not an additive bias",
        "keys outside the map are zero plus biases and take part in the softmax",
        "the two paths are one convolution with the sum of their weights, in training too: the same function "
        "and gradients for half the cost of the code's two convolutions",
        "the fixed shift is a parameter without gradient, whose bias does learn",
    ),
    equivariance=1,
)
class SlideAttention(nn.Module):
    """Attention over K×K neighbours that a depthwise convolution brings to each position.

    Args:
        dim: channels C.
        heads: each of C/heads consecutive channels.
        kernel: K, odd.

    Raises:
        UserError: an even kernel.
    """

    def __init__(self, dim: int, heads: int, *, kernel: int) -> None:
        super().__init__()
        odd_kernel("op.kernel", kernel)
        self.heads, self.kernel, width, taps = heads, kernel, dim // heads, kernel**2
        self.scale = width**-0.5
        self.query_key_value = nn.Linear(dim, 3 * dim)  # q, k, v of one head after another
        self.shift = nn.Conv2d(width, width * taps, kernel, padding=kernel // 2, groups=width)
        self.deform = nn.Conv2d(width, width * taps, kernel, padding=kernel // 2, groups=width)
        self.bias_table = nn.Parameter(torch.empty(heads, taps))
        self.output = nn.Linear(dim, dim)
        one_hot = torch.eye(taps).view(taps, 1, kernel, kernel).repeat(width, 1, 1, 1)
        self.shift.weight = nn.Parameter(one_hot, requires_grad=False)
        for layer in (self.query_key_value, self.output):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        nn.init.trunc_normal_(self.bias_table, std=0.02)

    def no_weight_decay(self) -> set[str]:
        """Relative positions are not decayed, as in Swin."""
        return {"bias_table"}

    def merged(self) -> tuple[Tensor, Tensor]:
        """Weight (d·K², 1, K, K) and bias of the one convolution that both paths are."""
        assert self.shift.bias is not None
        assert self.deform.bias is not None
        return self.shift.weight + self.deform.weight, self.shift.bias + self.deform.bias

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        by_head = self.query_key_value(x).unflatten(-1, (self.heads, 3, -1))  # (B, H, W, heads, 3, d)
        query, key, value = by_head.permute(4, 0, 3, 5, 1, 2).flatten(1, 2)  # (B · heads, d, H, W)
        weight, bias = self.merged()
        both = F.conv2d(torch.cat([key, value]), weight, bias, padding=self.kernel // 2, groups=key.shape[1])
        keys, values = both.unflatten(1, (-1, self.kernel**2)).chunk(2)  # (B · heads, d, K², H, W)
        # q·(k + b) = q·k + b Σ_c q_c, without a copy of the keys
        query = query * self.scale
        table = self.bias_table.repeat(len(x), 1)[:, :, None, None]
        logits = torch.einsum("ndhw,ndthw->nthw", query, keys) + table * query.sum(1, keepdim=True)
        y = torch.einsum("nthw,ndthw->ndhw", logits.softmax(1), values)
        return self.output(y.unflatten(0, (len(x), self.heads)).flatten(1, 2).permute(0, 2, 3, 1))
