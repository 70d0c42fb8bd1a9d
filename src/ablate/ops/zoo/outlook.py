"""Outlook attention (VOLO) and convolutional self-attention (LVT): weights of a window from its centre."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.errors import UserError
from ablate.kernels.layout import average_pool
from ablate.ops.checks import odd_kernel, positive
from ablate.ops.registry import VOLO, register

BORDER = "zeros outside the map take part in the softmax"
SUMMED = "windows overlap: their outputs are summed, not averaged, so that positions differ by their parity"


class OutlookWeights(nn.Module):
    """Generate the K² × K² attention matrix of each window from the mean feature of its stride² block."""

    def __init__(self, dim: int, heads: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.heads, self.kernel, self.stride = heads, kernel, stride
        self.scale = (dim // heads) ** -0.5
        self.expand = nn.Linear(dim, kernel**4 * heads)
        nn.init.trunc_normal_(self.expand.weight, std=0.02)
        nn.init.zeros_(self.expand.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, heads, windows, K², K²), the last summing to 1."""
        logits = self.expand(average_pool(x, self.stride)) * self.scale
        taps = self.kernel**2
        by_window = logits.flatten(1, 2).unflatten(-1, (self.heads, taps, taps))
        return by_window.transpose(1, 2).softmax(-1)


def unfold(x: Tensor, kernel: int, stride: int) -> Tensor:
    """(B, H, W, C) → (B, windows, K², C): patches around every `stride`-th position, 0 outside."""
    patches = F.unfold(x.permute(0, 3, 1, 2), kernel, padding=kernel // 2, stride=stride)
    return patches.unflatten(1, (x.shape[-1], kernel**2)).permute(0, 3, 2, 1)


def fold(patches: Tensor, height: int, width: int, kernel: int, stride: int) -> Tensor:
    """(B, windows, K², C) → (B, H, W, C): each position the sum of its places in all patches."""
    columns = patches.permute(0, 3, 2, 1).flatten(1, 2)
    folded = F.fold(columns, (height, width), kernel, padding=kernel // 2, stride=stride)
    return folded.permute(0, 2, 3, 1)


def attend(attention: Tensor, values: Tensor) -> Tensor:
    """(B, heads, windows, K², K²), (B, windows, K², C) → (B, windows, K², C)."""
    by_head = values.unflatten(-1, (attention.shape[1], -1)).permute(0, 3, 1, 2, 4)  # (B, G, windows, K², d)
    return (attention @ by_head).permute(0, 2, 3, 1, 4).flatten(-2)


@register(
    "outlook",
    paper="VOLO, Yuan et al.",
    year=2021,
    sliding=("kernel",),
    host=VOLO,
    channel_setting="the host's heads, value and output projection",
    spatial_processing="3×3 patches around every second position, summed; centre feature, linear; softmax",
    equation="y = fold( A_w · unfold(v)_w )                        w every s-th position\n"
    "A_w = softmax( W mean_{i in block w}(x_i) / √d )     K² × K² for each head",
    quirks=(
        SUMMED,
        BORDER,
        "1/√d scales the logits although no query meets a key, as in the code",
        "op.grid=1 is timm's form; the authors' code has another one for it, which no published model uses",
    ),
    equivariance=2,
)
class OutlookAttention(nn.Module):
    """Outlook attention: each window's centre makes the weights among all positions of its K×K patch.

    Args:
        dim: channels C.
        heads: attention matrices per window.
        kernel: K, odd.
        grid: s, distance of windows; their features are means over s×s blocks.
        value_bias: whether the value projection has one.

    Raises:
        UserError: an even kernel, a grid below 1 or so wide that windows leave gaps.
    """

    def __init__(self, dim: int, heads: int, *, kernel: int, grid: int, value_bias: bool) -> None:
        super().__init__()
        odd_kernel("op.kernel", kernel)
        _check_grid(kernel, grid)
        self.kernel, self.grid = kernel, grid
        self.weights = OutlookWeights(dim, heads, kernel, grid)
        self.value = nn.Linear(dim, dim, bias=value_bias)
        self.output = nn.Linear(dim, dim)
        _initialize(self.value, self.output)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        _, height, width, _ = x.shape
        patches = attend(self.weights(x), unfold(self.value(x), self.kernel, self.grid))
        return self.output(fold(patches, height, width, self.kernel, self.grid))


@register(
    "csa",
    paper="LVT, Yang et al.",
    year=2022,
    sliding=("kernel",),
    host=VOLO,
    channel_setting="the host's heads and a full matrix for each tap; output projection",
    spatial_processing="3×3 patches around every second position, summed; centre feature, linear; softmax",
    equation="y = fold( A_w · [W_t x_{w,t}]_t )                    w every s-th position, t its K² taps\n"
    "A_w = softmax( W mean_{i in block w}(x_i) / √d )     K² × K² for each head",
    quirks=(SUMMED, BORDER, "in LVT its stage is the first one, with K=3 on every second position"),
    equivariance=2,
)
class ConvolutionalSelfAttention(nn.Module):
    """Outlook attention whose values are a convolution's: each tap of the patch has its own C×C matrix.

    Args:
        dim: channels C.
        heads: attention matrices per window.
        kernel: K, odd.
        grid: s, distance of windows; their features are means over s×s blocks.

    Raises:
        UserError: an even kernel, a grid below 1 or so wide that windows leave gaps.
    """

    def __init__(self, dim: int, heads: int, *, kernel: int, grid: int) -> None:
        super().__init__()
        odd_kernel("op.kernel", kernel)
        _check_grid(kernel, grid)
        self.kernel, self.grid = kernel, grid
        self.weights = OutlookWeights(dim, heads, kernel, grid)
        self.taps = nn.Parameter(torch.empty(kernel**2, dim, dim))
        nn.init.normal_(self.taps, std=math.sqrt(2 / (kernel**2 * dim)))
        self.output = nn.Linear(dim, dim)
        _initialize(self.output)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        _, height, width, _ = x.shape
        values = torch.einsum("bwtc,tdc->bwtd", unfold(x, self.kernel, self.grid), self.taps)
        patches = attend(self.weights(x), values)
        return self.output(fold(patches, height, width, self.kernel, self.grid))


def _check_grid(kernel: int, grid: int) -> None:
    positive("op.grid", grid)
    if grid > kernel // 2 + 1:
        raise UserError(
            f"op.grid={grid} with op.kernel={kernel} leaves positions that no window covers",
            f"use op.grid={kernel // 2 + 1} or less",
        )


def _initialize(*layers: nn.Linear) -> None:
    for layer in layers:
        nn.init.trunc_normal_(layer.weight, std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
