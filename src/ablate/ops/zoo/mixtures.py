"""Mixtures of kernels: one convolution for every image, summed from a few learned ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ablate.kernels.convolution import convolve_each
from ablate.ops.axes import resolve_heads
from ablate.ops.checks import odd_kernel, positive
from ablate.ops.registry import RESNET, register
from ablate.ops.slot import Slot

SPATIAL_PROCESSING = "neighborhood 3×3; static, 4 kernels mixed by the pooled feature; no norm"


class KernelMixture(nn.Module):
    """E convolutions C → C whose kernels are summed per image before they are applied.

        y = conv(x, Σ_e α_e W_e) + Σ_e α_e b_e

    Each kernel starts as PyTorch's convolution does.

    Raises:
        UserError: an even kernel, no experts, groups that do not divide the channels.
    """

    def __init__(self, slot: Slot, kernel: int, experts: int, groups: str, bias: bool) -> None:
        odd_kernel("op.kernel", kernel)
        positive("op.experts", experts)
        super().__init__()
        dim = slot.dim
        self.stride, self.groups = slot.stride, resolve_heads(groups, dim, slot.heads, "op.groups")
        self.weight = nn.Parameter(torch.empty(experts, dim, dim // self.groups, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(experts, dim)) if bias else None
        self.fan_in = self.weight[0, 0].numel()
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -1 / math.sqrt(self.fan_in), 1 / math.sqrt(self.fan_in))

    def forward(self, x: Tensor, mixture: Tensor) -> Tensor:
        """(B, H, W, C) and each image's α (B, E) → (B, H', W', C)."""
        weight = (mixture @ self.weight.flatten(1)).unflatten(1, self.weight.shape[1:])
        bias = None if self.bias is None else mixture @ self.bias
        y = convolve_each(
            x.permute(0, 3, 1, 2),
            weight,
            bias,
            stride=self.stride,
            padding=weight.shape[-1] // 2,
            groups=self.groups,
        )
        return y.permute(0, 2, 3, 1)

    def extra_repr(self) -> str:
        experts, dim, _, kernel, _ = self.weight.shape
        return f"{dim}, experts={experts}, kernel={kernel}, stride={self.stride}, groups={self.groups}"


@register(
    "condconv",
    paper="CondConv, Yang et al.",
    year=2019,
    sliding=("kernel",),
    host=RESNET,
    channel_setting="a filter per pair of channels and image, no projections",
    spatial_processing=SPATIAL_PROCESSING,
    equation=(
        "y_i[c] = Σ_Δ Σ_c' W[c, c', Δ] · x_{i+Δ}[c'] + b[c]\n"
        "W = Σ_e α_e W_e,  b = Σ_e α_e b_e   (one kernel for all positions of an image)\n"
        "α = sigmoid(W_r mean_i(x_i) + b_r)   (they do not sum to one)"
    ),
    quirks=(
        "a router for every convolution; in CondConv-EfficientNet one router serves the three "
        "convolutions of a block",
    ),
    strides=(1, 2),
)
class CondConv(nn.Module):
    """Conditionally parameterized convolution (Yang et al., NeurIPS 2019): a sigmoid for every expert.

    The function and the kernels' initialisation are those of timm's `CondConv2d`.

    Args:
        slot: its channels C; its heads are what `groups="1x"` means.
        kernel: K, odd.
        experts: number of kernels E.
        groups: of the convolution: `1`, `1x`, an integer, `C` or `C/16`.
        bias: a constant per channel, mixed as the kernels are.

    Raises:
        UserError: an even kernel, no experts, groups that do not divide the channels.
    """

    def __init__(self, slot: Slot, kernel: int, experts: int, groups: str, bias: bool) -> None:
        super().__init__()
        self.mixture = KernelMixture(slot, kernel, experts, groups, bias)
        self.router = nn.Linear(slot.dim, experts)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, ⌈H / stride⌉, ⌈W / stride⌉, C)."""
        return self.mixture(x, self.router(x.mean((1, 2))).sigmoid())


@register(
    "dynamic_conv",
    paper="Dynamic convolution, Chen et al.",
    year=2020,
    sliding=("kernel",),
    host=RESNET,
    channel_setting="a filter per pair of channels and image, no projections",
    spatial_processing=SPATIAL_PROCESSING,
    equation=(
        "y_i[c] = Σ_Δ Σ_c' W[c, c', Δ] · x_{i+Δ}[c'] + b[c]\n"
        "W = Σ_e α_e W_e,  b = Σ_e α_e b_e   (one kernel for all positions of an image)\n"
        "α = softmax( (W₂ relu(W₁ mean_i(x_i)) + b₂) / τ )"
    ),
    quirks=(
        "the paper lowers τ from 30 to 1 over the first ten epochs; here it keeps its value, for no operator "
        "knows the epoch: 30 is the paper's start, near-uniform, and larger logits can still be learned; "
        "op.temperature=1 is its end; a training loop of your own may set the attribute `temperature`",
        "after a public port, as no code of the authors is known to us: one hidden channel more than "
        "C · squeeze, kernels that start √6 times as large as a convolution's, biases at 0",
    ),
    strides=(1, 2),
)
class DynamicConv(nn.Module):
    """Dynamic convolution (Chen et al., CVPR 2020): attention over kernels, with a temperature.

    Args:
        slot: its channels C; its heads are what `groups="1x"` means.
        kernel: K, odd.
        experts: number of kernels E.
        groups: of the convolution: `1`, `1x`, an integer, `C` or `C/16`.
        bias: a constant per channel, mixed as the kernels are.
        squeeze: hidden channels of the router are ⌊C · squeeze⌋ + 1.
        temperature: τ of the softmax.

    Raises:
        UserError: an even kernel, no experts, groups that do not divide the channels, a squeeze or
            temperature that is not positive.
    """

    def __init__(
        self,
        slot: Slot,
        kernel: int,
        experts: int,
        groups: str,
        bias: bool,
        squeeze: float,
        temperature: float,
    ) -> None:
        positive("op.squeeze", squeeze)
        positive("op.temperature", temperature)
        super().__init__()
        self.temperature = temperature
        self.mixture = KernelMixture(slot, kernel, experts, groups, bias)
        hidden = int(slot.dim * squeeze) + 1
        self.reduce = nn.Linear(slot.dim, hidden, bias=False)
        self.expand = nn.Linear(hidden, experts)
        self._initialize()

    def _initialize(self) -> None:
        bound = math.sqrt(6 / self.mixture.fan_in)
        nn.init.uniform_(self.mixture.weight, -bound, bound)
        if self.mixture.bias is not None:
            nn.init.zeros_(self.mixture.bias)
        for layer in (self.reduce, self.expand):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.expand.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, ⌈H / stride⌉, ⌈W / stride⌉, C)."""
        logits = self.expand(self.reduce(x.mean((1, 2))).relu())
        return self.mixture(x, (logits / self.temperature).softmax(-1))

    def extra_repr(self) -> str:
        return f"temperature={self.temperature:g}"
