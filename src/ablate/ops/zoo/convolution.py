"""The standard convolution, whole or in groups."""

from __future__ import annotations

from torch import Tensor, nn

from ablate.ops.axes import resolve_heads
from ablate.ops.checks import odd_kernel
from ablate.ops.deformable import deformed
from ablate.ops.registry import RESNET, register


@register(
    "conv",
    paper="LeCun et al.",
    year=1989,
    sliding=("kernel",),
    host=RESNET,
    channel_setting="a filter per pair of channels, no projections",
    spatial_processing="neighborhood 3×3; static; no norm",
    equation="y_i[c] = Σ_Δ Σ_c' W[c, c', Δ] · x_{i+Δ}[c'] + b[c]   (c' in the group of c)",
    strides=(1, 2),
    equivariance=1,
)
class Convolution(nn.Module):
    """K×K convolution C → C with zero padding, initialised as in PyTorch.

    Unlike the sums over a neighborhood it mixes channels: each output channel has a filter for
    every input channel of its group. `groups="C"` is the depthwise convolution (`dwconv`).

    Args:
        dim: channels C.
        heads: the host's number of heads, what `groups="1x"` means.
        stride: of the output positions.
        kernel: K, odd.
        groups: blocks of channels that do not see each other: `1`, `1x`, an integer, `C` or `C/16`.
        bias: add a constant per channel.
        deformable: of the host; taps are moved by learned offsets, see `DeformableConv2d`.

    Raises:
        UserError: an even kernel; groups that do not divide the channels.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        stride: int,
        kernel: int,
        groups: str,
        bias: bool,
        deformable: bool = False,
    ) -> None:
        odd_kernel("op.kernel", kernel)
        super().__init__()
        convolution = nn.Conv2d(
            dim,
            dim,
            kernel,
            stride=stride,
            padding=kernel // 2,
            groups=resolve_heads(groups, dim, heads, "op.groups"),
            bias=bias,
        )
        self.convolution = deformed(convolution) if deformable else convolution

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, ⌈H / stride⌉, ⌈W / stride⌉, C)."""
        return self.convolution(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
