"""Convolutions whose kernels differ from image to image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def convolve_each(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int,
    padding: int,
    dilation: int = 1,
    groups: int,
) -> Tensor:
    """Convolve every image with its own kernel: one convolution, whose groups are the groups of all images.

    Args:
        images: (B, C, H, W).
        weight: (B, C', C/groups, K, K).
        bias: (B, C').
        stride: of the kernels.
        padding: zeros around the images.
        dilation: distance between two taps.
        groups: of the convolution of one image.

    Returns:
        (B, C', H', W').
    """
    batch, channels, height, width = images.shape
    if batch == 0:  # PyTorch refuses 0 groups; the sum over no kernels is zero and passes gradients on
        weight, bias = weight.sum(0), None if bias is None else bias.sum(0)
        return F.conv2d(images, weight, bias, stride, padding, dilation, groups)
    images = images.reshape(1, batch * channels, height, width)
    weight, bias = weight.flatten(0, 1), None if bias is None else bias.flatten()
    y = F.conv2d(images, weight, bias, stride, padding, dilation, batch * groups)
    return y.unflatten(1, (batch, weight.shape[0] // batch))[0]
