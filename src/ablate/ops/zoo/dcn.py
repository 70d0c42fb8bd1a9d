"""Deformable convolutions of the third and fourth version: sums over samples whose places are generated."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate import kernels
from ablate.errors import UserError
from ablate.ops.checks import odd_kernel, positive
from ablate.ops.registry import register

WIDTH = 16  # of which the channels of a group are a multiple in DCNv4
ROWS = 8  # of which the rows of DCNv4's generator are a multiple
EQUATION = """\
y_i = W_o concat_g Σ_t m_{i,g,t} · v_g( p_i + s · (Δ_t + o_{i,g,t}) ),  v = W_v x
v_g(p): bilinear between positions, 0 outside the map"""
STARTS = "its samples begin at the K×K neighbors, because what generates their offsets begins at zero"
ORDER = (
    "the authors count taps column by column and offsets as (x, y); their weights are put in our order, row "
    "by row and (y, x), when they are loaded"
)
SCALED = "the offset scale multiplies the distance of the taps too, not the offsets alone"


class CentreScale(nn.Module):
    """Mix each group with the value at its position: (1 − c)·y + c·v, c = σ(W f + b), ½ at first."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, heads)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, features: Tensor, y: Tensor, values: Tensor) -> Tensor:
        """Three maps (B, H, W, C) → (B, H, W, C)."""
        share = self.gate(features).sigmoid().repeat_interleave(y.shape[-1] // self.gate.out_features, -1)
        return y + share * (values - y)


class Sampling(nn.Module):
    """The sum over samples between two projections, as both versions have it."""

    def __init__(self, dim: int, heads: int, kernel: int, offset_scale: float, *, bias: bool) -> None:
        odd_kernel("op.kernel", kernel)
        positive("op.offset_scale", offset_scale)
        super().__init__()
        self.heads, self.kernel, self.scale = heads, kernel, offset_scale
        self.taps = kernel**2
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim, bias=bias)
        for layer in (self.value, self.output):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def samples(self, values: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
        """(B, H, W, C), (B, H, W, G, K²), (B, H, W, G, K², 2) → (B, H, W, C)."""
        taps = kernels.sampled_sums.grid(self.kernel, 1, values.device)
        exact = offsets.to(torch.promote_types(offsets.dtype, torch.float32))
        return kernels.sampled_sums.aggregate(values, weights, self.scale * (taps + exact))

    def extra_repr(self) -> str:
        return f"heads={self.heads}, kernel={self.kernel}, scale={self.scale:g}"


@register(
    "dcnv3",
    paper="InternImage, Wang et al.",
    year=2023,
    sliding=("kernel", "feature_kernel"),
    channel_setting="a filter for every 16 channels, value and output projection",
    spatial_processing="3×3 samples, moved by offsets; both from features of a depthwise 3×3; softmax",
    equation=EQUATION
    + "\nz = gelu(LN(Conv_3×3 depthwise(x))),  m_{i,g} = softmax_t(W_m z_i),  o_i = W_o' z_i",
    quirks=(
        STARTS + "; its weights begin as those of a box filter",
        SCALED,
        "a sample outside the map is 0 and keeps its weight, so that at borders part of the weight is lost",
        ORDER,
        "op.centre_scale=true mixes the sum with the value at the position, as the largest InternImages do",
    ),
    equivariance=1,
)
class DCNv3(Sampling):
    """DCNv3 (InternImage, Wang et al., CVPR 2023).

    Args:
        dim: channels C.
        heads: groups, each of C/heads consecutive channels with samples of its own.
        kernel: K, odd.
        offset_scale: s.
        feature_kernel: of the depthwise convolution before offsets and weights, odd.
        centre_scale: mix the sum with the value at the position.

    Raises:
        UserError: an even kernel, a scale that is not positive.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        kernel: int,
        offset_scale: float,
        feature_kernel: int,
        centre_scale: bool,
    ) -> None:
        odd_kernel("op.feature_kernel", feature_kernel)
        super().__init__(dim, heads, kernel, offset_scale, bias=True)
        self.surround = nn.Conv2d(dim, dim, feature_kernel, padding=feature_kernel // 2, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.offsets = nn.Linear(dim, heads * self.taps * 2)
        self.weights = nn.Linear(dim, heads * self.taps)
        self.centre = CentreScale(dim, heads) if centre_scale else None
        for layer in (self.offsets, self.weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        features = F.gelu(self.norm(self.surround(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)))
        weights = self.weights(features).unflatten(-1, (self.heads, self.taps)).softmax(-1)
        offsets = self.offsets(features).unflatten(-1, (self.heads, self.taps, 2))
        values = self.value(x)
        y = self.samples(values, weights, offsets)
        return self.output(y if self.centre is None else self.centre(features, y, values))


@register(
    "dcnv4",
    paper="DCNv4, Xiong et al.",
    year=2024,
    sliding=("kernel",),
    channel_setting="a filter for every 16 channels, value and output projection",
    spatial_processing="3×3 samples, moved by offsets; both from the centre feature, linear; no norm",
    equation=EQUATION + "\n[o_i; m_i] = W x_i + b   (m neither normalized nor bounded)",
    quirks=(
        "it begins as zero: what generates offsets and weights is zero at first, so that in the first step "
        "only the rows of the weights (and the output's bias) have a gradient other than zero",
        SCALED,
        "the generator has a multiple of 8 rows, as the authors' kernel reads them; no surplus is used",
        "groups have a multiple of 16 channels, as the authors' kernel demands; op=dcnv3 takes any number",
        ORDER,
        "FlashInternImage has no bias in the output projection and no depthwise convolution; op.bias and "
        "op.depthwise add them",
        "it moves with its input, but its offsets have no bound, so that no distance from the border is "
        "large enough: equivariance is not claimed",
    ),
)
class DCNv4(Sampling):
    """DCNv4 (Xiong et al., CVPR 2024).

    Args:
        dim: channels C.
        heads: groups, each of C/heads consecutive channels, a multiple of 16.
        kernel: K, odd.
        offset_scale: s.
        depthwise: a depthwise K×K convolution before offsets and weights.
        centre_scale: mix the sum with the value at the position.
        bias: of the output projection.

    Raises:
        UserError: an even kernel, a scale that is not positive, groups of another width.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        kernel: int,
        offset_scale: float,
        depthwise: bool,
        centre_scale: bool,
        bias: bool,
    ) -> None:
        super().__init__(dim, heads, kernel, offset_scale, bias=bias)
        if dim // heads % WIDTH:
            raise UserError(
                f"op.heads gives groups of {dim // heads} channels: DCNv4 takes multiples of {WIDTH}",
                f"use op.heads=C/{WIDTH} where {WIDTH} divides the channels, or op=dcnv3",
            )
        self.surround = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim) if depthwise else None
        self.generated = 3 * heads * self.taps
        self.offsets_weights = nn.Linear(dim, -(-self.generated // ROWS) * ROWS)
        self.centre = CentreScale(dim, heads) if centre_scale else None
        nn.init.zeros_(self.offsets_weights.weight)
        nn.init.zeros_(self.offsets_weights.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        features = x
        if self.surround is not None:
            features = self.surround(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        generated = self.offsets_weights(features)[..., : self.generated].unflatten(-1, (self.heads, -1))
        offsets, weights = generated.split([2 * self.taps, self.taps], -1)
        values = self.value(x)
        y = self.samples(values, weights, offsets.unflatten(-1, (self.taps, 2)))
        return self.output(y if self.centre is None else self.centre(y, y, values))
