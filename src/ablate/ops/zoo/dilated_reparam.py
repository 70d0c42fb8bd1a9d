"""The dilated reparam block: a large depthwise convolution, trained as a sum with smaller dilated ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.errors import UserError
from ablate.ops.checks import kernel_fits, odd_kernel
from ablate.ops.registry import CONVNEXT, register
from ablate.ops.zoo.convolution import Convolution

# Kernel and dilation of the branches beside a kernel.
PUBLISHED: dict[int, tuple[tuple[int, int], ...]] = {
    5: ((3, 1), (3, 2)),
    7: ((5, 1), (3, 2), (3, 3)),
    9: ((5, 1), (5, 2), (3, 3), (3, 4)),
    11: ((5, 1), (5, 2), (3, 3), (3, 4), (3, 5)),
    13: ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5)),
    15: ((5, 1), (7, 2), (3, 3), (3, 5), (3, 7)),
    17: ((5, 1), (9, 2), (3, 4), (3, 5), (3, 7)),
}


class DilatedSum(nn.Module):
    """Depthwise convolutions of the same positions, each with a batch norm, summed.

    In evaluation mode, where every batch norm is a constant factor and term, it computes the one convolution
    that they are together.

    Args:
        dim: channels C.
        kernel: K of the largest convolution, odd.
        branches: kernel and dilation of the others, each within K positions.
        stride: of the output positions.
    """

    def __init__(self, dim: int, kernel: int, branches: tuple[tuple[int, int], ...], stride: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.forms = ((kernel, 1), *branches)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(
                dim,
                dim,
                size,
                stride=stride,
                padding=dilation * (size // 2),
                dilation=dilation,
                groups=dim,
                bias=False,
            )
            for size, dilation in self.forms
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(dim) for _ in self.forms)
        for convolution, _ in self.parts():
            nn.init.trunc_normal_(convolution.weight, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, ⌈H / stride⌉, ⌈W / stride⌉)."""
        if not self.training:
            weight, bias = (x.to(images.dtype) for x in self.merged())
            return F.conv2d(images, weight, bias, self.stride, self.kernel // 2, groups=weight.shape[0])
        terms = [norm(convolution(images)) for convolution, norm in self.parts()]
        return sum(terms[1:], start=terms[0])

    def parts(self) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        """Each convolution with its batch norm, the large one first."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            yield cast(nn.Conv2d, convolution), cast(nn.BatchNorm2d, norm)

    def merged(self) -> tuple[Tensor, Tensor]:
        """Weight (C, 1, K, K) and bias (C,) of the convolution that it is in evaluation mode."""
        first, *_ = [convolution.weight for convolution, _ in self.parts()]
        exact = torch.promote_types(first.dtype, torch.float32)
        weight, bias = torch.zeros_like(first, dtype=exact), first.new_zeros(first.shape[0], dtype=exact)
        for (size, dilation), (convolution, norm) in zip(self.forms, self.parts(), strict=True):
            assert norm.running_var is not None
            assert norm.running_mean is not None
            gain = norm.weight.to(exact) / (norm.running_var.to(exact) + norm.eps).sqrt()
            bias = bias + norm.bias.to(exact) - norm.running_mean.to(exact) * gain
            margin = self.kernel // 2 - dilation * (size // 2)
            place = slice(margin, self.kernel - margin, dilation)
            weight[:, :, place, place] += convolution.weight.to(exact) * gain[:, None, None, None]
        return weight, bias


@register(
    "dilated_reparam",
    paper="UniRepLKNet, Ding et al.",
    year=2024,
    sliding=("kernel",),
    host=f"{CONVNEXT} host.stages=[1,2,3]",
    channel_setting="a filter per channel, no projections",
    spatial_processing="neighborhood 13×13; static, with dilated kernels and their batch norms; no norm",
    equation=(
        "y = BN( Conv_K×K(x) ) + Σ_b BN_b( Conv_{k_b×k_b, dilation r_b}(x) )     depthwise, without biases\n"
        "in evaluation: y = Conv_K×K(x; ω) + β, one depthwise convolution"
    ),
    quirks=(
        "in training each branch has batch statistics of its own, so that it is one convolution in "
        "evaluation only; there it computes that one, and the operator's `merge()` returns it for a network "
        "that is trained no more",
        "parameters and costs are those of training; merged it has K² + 1 parameters per channel",
        "its authors use K=13 in the later stages and 3×3 in the first; squeeze-and-excitation and 1×1 "
        "convolutions with GELU and GRN follow in their block, and are not part of it",
    ),
    strides=(1, 2),
    equivariance=1,
)
class DilatedReparam(nn.Module):
    """Dilated reparam block (UniRepLKNet, Ding et al., CVPR 2024).

    Args:
        dim: channels C.
        resolution: (H, W), checked against the kernel if given.
        stride: of the output positions.
        kernel: K, odd.
        branches: `published`, those of the authors' table for K from 5 to 17; `none`, the large one alone.

    Raises:
        UserError: an even kernel, one that is too large for the map or without published branches.
    """

    def __init__(
        self,
        dim: int,
        resolution: tuple[int, int] | None,
        stride: int,
        *,
        kernel: int,
        branches: Literal["published", "none"],
    ) -> None:
        odd_kernel("op.kernel", kernel)
        if resolution is not None:
            kernel_fits("op.kernel", kernel, 1, "zero", resolution)
        if branches == "published" and kernel not in PUBLISHED:
            raise UserError(
                f"op.kernel={kernel} has no published branches",
                f"use one of {', '.join(map(str, PUBLISHED))}, or op.branches=none",
            )
        super().__init__()
        self.sum = DilatedSum(dim, kernel, PUBLISHED[kernel] if branches == "published" else (), stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, ⌈H / stride⌉, ⌈W / stride⌉, C)."""
        return self.sum(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    @torch.no_grad()
    def merge(self) -> Convolution:
        """Return the one depthwise convolution that it is in evaluation mode, `conv` with groups `C`."""
        weight, bias = self.sum.merged()
        found = Convolution(len(bias), 1, self.sum.stride, self.sum.kernel, groups="C", bias=True)
        found.to(weight).convolution.load_state_dict({"weight": weight, "bias": bias})
        first, _ = next(self.sum.parts())
        return found.to(first.weight).train(self.training)

    def extra_repr(self) -> str:
        return ", ".join(f"{size}×{size} dilation {dilation}" for size, dilation in self.sum.forms)
