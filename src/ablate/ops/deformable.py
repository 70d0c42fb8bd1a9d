"""Deformable convolution (Dai et al., 2017): torchvision's, with offsets from a convolution of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula
from torchvision.ops import DeformConv2d, deform_conv2d

from ablate.kernels.precision import in_autocast


class DeformableConv2d(DeformConv2d):
    """A convolution whose taps are moved by offsets: one for each tap and position, for all channels.

    Offsets come from a convolution that begins at zero, so that the layer begins as `nn.Conv2d` with the same
    weights. Names are mmcv's (`DeformConv2dPack`, DCNv1).
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, groups: int, *, bias: bool
    ) -> None:
        padding = kernel // 2
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=bias)
        self.conv_offset = nn.Conv2d(inputs, 2 * kernel**2, kernel, stride, padding)
        nn.init.zeros_(self.conv_offset.weight)
        assert self.conv_offset.bias is not None
        nn.init.zeros_(self.conv_offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', H', W'), in float32 or finer and then in the autocast dtype."""
        offsets = self.conv_offset(x)
        exact = torch.promote_types(x.dtype, torch.float32)  # places in half precision are beside themselves
        y = deform_conv2d(
            x.to(exact),
            offsets.to(exact),
            self.weight.to(exact),
            None if self.bias is None else self.bias.to(exact),
            self.stride,
            self.padding,
        )
        return in_autocast(y)


def deformed(convolution: nn.Conv2d) -> DeformableConv2d:
    """Return a deformable convolution with the weights of a square one that is filled up to its own size."""
    (kernel, *_), (stride, *_) = convolution.kernel_size, convolution.stride
    found = DeformableConv2d(
        convolution.in_channels,
        convolution.out_channels,
        kernel,
        stride,
        convolution.groups,
        bias=convolution.bias is not None,
    )
    found.weight, found.bias = convolution.weight, convolution.bias
    return found


@register_flop_formula(torch.ops.torchvision.deform_conv2d)
def _operations(x: Any, weight: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Count those of the convolution; interpolation at the offsets is not counted."""
    batch, outputs, height, width = out_shape
    _, channels, rows, columns = weight
    return int(2 * batch * outputs * height * width * channels * rows * columns)
