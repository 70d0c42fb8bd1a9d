"""Stand-alone self-attention (Ramachandran et al., 2019) in the form of its paper."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ablate.errors import UserError
from ablate.kernels.layout import average_pool
from ablate.ops.axes import NeighborhoodConfig
from ablate.ops.axes.regions import NeighborhoodRegion
from ablate.ops.checks import odd_kernel, positive
from ablate.ops.registry import RESNET, register


@register(
    "sasa",
    paper="SASA, Ramachandran et al.",
    year=2019,
    sliding=("kernel",),
    host=RESNET,
    channel_setting="the host's heads, value projection",
    spatial_processing="neighborhood 7×7, border zero; q·k + q·r of rows and columns; softmax",
    equation="y_i = Σ_j softmax_j( q_i·k_j + q_i·r_{j−i} ) v_j,  r_Δ = [r^row_Δ; r^column_Δ]",
    quirks=(
        "no 1/√d and no biases, as in the paper; the 1×1 convolution after it in a bottleneck projects",
        "no code of its authors is known to us; a widespread port takes the softmax for each channel, "
        "without the sum of q·k: not this",
        "keys outside the map are zero and take part with their position; op.border=mask leaves them out",
        "with a stride, the output is averaged over stride² positions",
    ),
    strides=(1, 2),
    equivariance=1,
)
class StandAloneSelfAttention(nn.Module):
    """Attention over K×K neighbors with relative rows and columns.

    Row and column vectors have half a head's width each and are shared by all heads.

    Args:
        dim: channels C.
        heads: each of C/heads consecutive channels, an even number.
        stride: the output is averaged over stride² blocks.
        kernel: K, odd.
        dilation: distance of two taps.
        border: whether taps outside the map count in the softmax.

    Raises:
        UserError: an even kernel, heads of odd width.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        stride: int,
        *,
        kernel: int,
        dilation: int,
        border: Literal["zero", "mask", "inside"],
    ) -> None:
        super().__init__()
        odd_kernel("op.kernel", kernel)
        positive("op.dilation", dilation)
        width = dim // heads
        if width % 2:
            raise UserError(
                f"{heads} heads of {width} channels: rows and columns get half of a head's width each",
                f"choose a number of heads whose double divides {dim}",
            )
        self.heads, self.stride = heads, stride
        self.region = NeighborhoodRegion(
            NeighborhoodConfig("neighborhood", kernel, dilation, border), path="op"
        )
        offsets = 2 * kernel - 1 if border == "inside" else kernel
        self.query_key_value = nn.Linear(dim, 3 * dim, bias=False)
        self.rows = nn.Parameter(torch.randn(offsets, width // 2) * width**-0.5)
        self.columns = nn.Parameter(torch.randn(offsets, width // 2) * width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, ⌈H/stride⌉, ⌈W/stride⌉, C)."""
        region, groups = self.region, self.region.prepare(x)
        query, key, value = self.query_key_value(groups).chunk(3, dim=-1)
        no_bias = value.new_zeros(self.heads, region.offsets)
        y = region.attend(query, key, value, no_bias, groups.shape, self._positions(query))
        return average_pool(region.restore(y, x.shape), self.stride)

    def _positions(self, query: Tensor) -> Tensor:
        """q·r of every row offset, then of every column offset: (B, H, W, C) → (B, H, W, heads, offsets)."""
        by_row, by_column = query.unflatten(-1, (self.heads, 2, -1)).unbind(-2)
        return torch.cat([by_row @ self.rows.T, by_column @ self.columns.T], dim=-1)
