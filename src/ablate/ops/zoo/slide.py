"""Slide attention (Pan et al., 2023): neighbors gathered by depthwise convolutions, fixed plus learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ablate import kernels
from ablate.ops.checks import odd_kernel
from ablate.ops.registry import register


@register(
    "slide",
    paper="Slide-Transformer, Pan et al.",
    year=2023,
    sliding=("kernel",),
    channel_setting="the host's heads, value and output projection",
    spatial_processing="neighborhood 3×3, border zero, shifts plus a learned convolution; q·(k + b); softmax",
    equation="y_i = Σ_t softmax_t( q_i·(k_{i,t} + b_t)/√d ) v_{i,t}\n"
    "k_{·,t} = (shift_t + w_t) * k,  v_{·,t} = (shift_t + w_t) * v     w shared by heads, keys and values",
    quirks=(
        "b stands inside the product with q: its effect is b · Σ_c q_c, not an additive bias",
        "keys outside the map are zero plus biases and take part in the softmax",
        "the two paths are one convolution with the sum of their weights, in training too: the same function "
        "and gradients for half the cost of the code's two convolutions",
        "the bias of the fixed shift does learn; its weight is a buffer, a parameter in the authors' code",
    ),
    equivariance=1,
)
class SlideAttention(nn.Module):
    """Attention over K×K neighbors that a depthwise convolution brings to each position.

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
        del self.shift.weight
        self.shift.register_buffer("weight", one_hot)  # under the name that it has as a parameter
        for layer in (self.query_key_value, self.output):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        nn.init.trunc_normal_(self.bias_table, std=0.02)

    def no_weight_decay(self) -> set[str]:
        """Relative positions are not decayed, as in Swin."""
        return {"bias_table"}

    def merged(self) -> tuple[Tensor, Tensor]:
        """Weight (d, K², K²), taps by neighbors, and bias (d, K²) of the convolution that both paths are."""
        assert self.shift.bias is not None
        assert self.deform.bias is not None
        weight, bias = self.shift.weight + self.deform.weight, self.shift.bias + self.deform.bias
        return weight.view(-1, self.kernel**2, self.kernel**2), bias.view(-1, self.kernel**2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        by_head = self.query_key_value(x).unflatten(-1, (self.heads, 3, -1))  # (B, H, W, heads, 3, d)
        query, key, value = by_head.permute(4, 0, 1, 2, 3, 5).flatten(-2)
        y = kernels.slide_attention.attention(
            query * self.scale, key, value, *self.merged(), self.bias_table, kernel=self.kernel
        )
        return self.output(y)
