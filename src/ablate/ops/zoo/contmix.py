"""Context mixing: dynamic kernels of two sizes from affinities to the means of the map's regions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate import kernels
from ablate.errors import UserError
from ablate.kernels.layout import pool_cells
from ablate.ops.axes.regions import NeighborhoodConfig, NeighborhoodRegion
from ablate.ops.checks import kernel_fits, odd_kernel, positive
from ablate.ops.registry import register
from ablate.ops.zoo.dilated_reparam import DilatedSum

# Kernel and dilation of the convolutions beside the large one; other than UniRepLKNet's.
BRANCHES: dict[int, tuple[tuple[int, int], ...]] = {
    5: ((3, 1), (3, 2)),
    7: ((5, 1), (3, 1), (3, 2), (3, 3)),
    9: ((5, 1), (7, 1), (5, 2), (3, 3), (3, 4)),
    13: ((5, 1), (7, 1), (7, 2), (3, 3), (3, 4), (3, 5)),
}


class Projected(nn.Module):
    """A linear layer without bias and a batch norm, channels last."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.norm = nn.BatchNorm1d(outputs)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C')."""
        return normalized(self.norm, self.linear(x))


class Excitation(nn.Module):
    """Squeeze-and-excitation: a factor between 0 and 1 per image and channel, from the map's mean."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = max(16, dim // 8)
        self.reduce, self.expand = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        _initialize(self.reduce, self.expand)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        factor = self.expand(F.gelu(self.reduce(x.mean((1, 2))))).sigmoid()
        return x * factor[:, None, None]


@register(
    "contmix",
    paper="OverLoCK, Lou and Yu",
    year=2025,
    sliding=("kernel", "small_kernel"),
    channel_setting="the host's heads in each half of the channels, value and output projection",
    spatial_processing="neighborhoods 5×5 and 13×13, moved inside; affinities to 7×7 pooled keys, linear + "
    "rᵇ; softmax; plus a large depthwise convolution, gated",
    equation="z_i = BN(W concat_β Σ_t a^β_{i,t} v^β_{i+Δ_t}) + BN(Conv_K×K reparam(x))_i\n"
    "a^β_i = softmax_t( Σ_l P^β_{t,l} (q_i·κ_l) √(G/C) + p^β_t + r^b_Δ )   β: small, large\n"
    "y = W_o BN( silu(BN(W_g x)) ⊙ SE(z) ) + b,   κ of the means of 7×7 regions of the map",
    quirks=(
        "the scale is that of C/G channels, although a filter's q and κ have half of them, as in the code",
        "one map P from affinities to taps for all filters and positions; no softmax over the regions",
        "a map smaller than the large kernel is enlarged to it (bilinear), and the sums are averaged back; a "
        "map of one position more or less than a whole multiple, which breaks the authors' code, is enlarged "
        "to the kernel at least",
        "the block around it (3×3 convolutions with identity, layer norms, MLP) is not part of it",
        "parameters are those of training; the large depthwise convolution is one in evaluation",
    ),
)
class ContMix(nn.Module):
    """The mixer of OverLoCK's plug-in block (Lou and Yu, CVPR 2025), from normalized features.

    Args:
        dim: channels C, whose first half has the small kernel and the second the large one.
        heads: G, filters in each half.
        resolution: (H, W), checked against the kernels if given.
        kernel: K of the large filters, odd, with published branches.
        small_kernel: k of the small ones, odd.
        pooled: S; the map is averaged to S×S regions.

    Raises:
        UserError: an even kernel, one without published branches or too large for the map; heads that do not
            divide half of the channels; a small kernel above the large one.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        resolution: tuple[int, int] | None,
        *,
        kernel: int,
        small_kernel: int,
        pooled: int,
    ) -> None:
        _check(dim, heads, resolution, kernel, small_kernel)
        positive("op.pooled", pooled)
        super().__init__()
        self.heads, self.kernels, self.pooled = heads, (small_kernel, kernel), pooled
        self.scale = (dim // heads) ** -0.5
        self.query, self.key = Projected(dim, dim // 2), Projected(dim, dim // 2)
        self.value, self.fusion, self.gate = (Projected(dim, dim) for _ in range(3))
        self.taps = nn.Linear(pooled**2, small_kernel**2 + kernel**2)
        self.regions = [NeighborhoodRegion(NeighborhoodConfig("", k, 1, "inside")) for k in self.kernels]
        self.biases = nn.ParameterList(
            nn.Parameter(nn.init.trunc_normal_(torch.empty(heads, region.offsets), std=0.02))
            for region in self.regions
        )
        self.surround = DilatedSum(dim, kernel, BRANCHES[kernel])
        self.surround_norm = nn.BatchNorm2d(dim)
        self.excitation = Excitation(dim)
        self.norm = nn.BatchNorm1d(dim)
        self.output = nn.Linear(dim, dim)
        _initialize(self.taps, self.output)

    def no_weight_decay(self) -> set[str]:
        """Relative positions are not decayed, as in Swin."""
        return {"biases.0", "biases.1"}

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        surround = self.surround_norm(self.surround(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        mixed = self.excitation(self.fusion(self.mix(x)) + surround)
        return self.output(normalized(self.norm, F.silu(self.gate(x)) * mixed))

    def mix(self, x: Tensor) -> Tensor:
        """Sums of both kernel sizes, small before large: (B, H, W, C) → (B, H, W, C)."""
        height, width = x.shape[1:3]
        large = self.enlarged(x)
        parts = zip(self.value(large).chunk(2, -1), self.filters(large), self.kernels, strict=True)
        found = torch.cat([kernels.aggregate(v, f, kernel=k, border="inside") for v, f, k in parts], -1)
        if found.shape[1:3] == (height, width):
            return found
        return pool_cells(found, (height, width))

    def filters(self, x: Tensor) -> list[Tensor]:
        """Filters of both sizes: (B, H, W, C) → (B, H, W, G, k²) and (B, H, W, G, K²)."""
        query = (self.query(x) * self.scale).unflatten(-1, (self.heads, -1))
        key = (
            self.key(pool_cells(x, (self.pooled, self.pooled))).flatten(1, 2).unflatten(-1, (self.heads, -1))
        )
        affinity = torch.einsum("bhwgd,blgd->bhwgl", query, key)
        by_size = self.taps(affinity).split([k**2 for k in self.kernels], -1)
        tables = (
            region.table(bias, *x.shape[1:3]) for region, bias in zip(self.regions, self.biases, strict=True)
        )
        return [(logits + table).softmax(-1) for logits, table in zip(by_size, tables, strict=True)]

    def enlarged(self, x: Tensor) -> Tensor:
        """The map, its shorter side enlarged to the large kernel if it is smaller."""
        least, short = max(self.kernels), min(x.shape[1:3])
        if short >= least:
            return x
        size = [max(least, int(least / short * side)) for side in x.shape[1:3]]
        images = F.interpolate(x.permute(0, 3, 1, 2), size, mode="bilinear", align_corners=False)
        return images.permute(0, 2, 3, 1)

    def extra_repr(self) -> str:
        return f"heads={self.heads}, kernels={self.kernels}, pooled={self.pooled}"


def normalized(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """Batch norm over the last dimension of (B, H, W, C)."""
    found: Tensor = norm(x.flatten(0, 2)).unflatten(0, x.shape[:3])
    return found


def _check(dim: int, heads: int, resolution: tuple[int, int] | None, kernel: int, small_kernel: int) -> None:
    for path, size in (("op.kernel", kernel), ("op.small_kernel", small_kernel)):
        odd_kernel(path, size)
        if resolution is not None:
            kernel_fits(path, size, 1, "zero", resolution)
    if kernel not in BRANCHES:
        raise UserError(
            f"op.kernel={kernel} has no published branches", f"use one of {', '.join(map(str, BRANCHES))}"
        )
    if small_kernel > kernel:
        raise UserError(
            f"op.small_kernel={small_kernel} is larger than op.kernel={kernel}",
            f"use op.small_kernel={kernel} or less",
        )
    if dim % (2 * heads):
        raise UserError(
            f"{heads} heads of {dim} channels: each half of the channels has that many filters",
            f"choose a number of heads whose double divides {dim}",
        )


def _initialize(*layers: nn.Linear) -> None:
    for layer in layers:
        nn.init.trunc_normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)
