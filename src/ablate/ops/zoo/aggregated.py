"""Aggregated attention (TransNeXt): neighbors and pooled tokens under one softmax, plus a dynamic filter."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.kernels.geometry import constant
from ablate.kernels.layout import merge_heads, pool_cells, split_heads
from ablate.ops.axes import NeighborhoodConfig
from ablate.ops.axes.regions import NeighborhoodRegion
from ablate.ops.checks import odd_kernel
from ablate.ops.registry import register
from ablate.ops.zoo.reduction import reduced, refuse_smaller

HIDDEN = 512  # channels of the position bias's hidden layer


@register(
    "aggregated",
    paper="TransNeXt, Shi",
    year=2024,
    sliding=("kernel",),
    channel_setting="the host's heads, value and output projection",
    spatial_processing="neighborhood 3×3, border mask, and 7×7 pooled tokens; cosine of q and k, and q·rᵏ "
    "outside the softmax; softmax over both",
    equation="y_i = Σ_t ( a_it + q̂_i·T_t + β_t ) v_{i+Δ_t} + Σ_p a_ip v'_p\n"
    "a_i = softmax over both of  s_i (q̂_i + e)·k̂_{i+Δ_t} + b_t  and  s_i (q̂_i + e)·k̂'_p + B(i, p)\n"
    "s_i = softplus(τ) · log(keys of i)\n"
    "B = W₂ relu(W₁ c_ip + b₁) + b₂   (c: log-spaced distance of i and p)",
    quirks=(
        "neighbors count twice: as keys of their own, and in the pooled token of their cell",
        "the dynamic filter q̂·T + β has neither the query embedding e nor the scale; taps outside the map "
        "meet values of zero",
        "TransNeXt reduces by 8, 4 and 2 in its first stages, always to 7×7 tokens at 224×224: "
        "op.reduction=L/7 does so by the map's longer side; its last stage has all keys and no neighborhood",
        "distances are divided by the map that the operator was built for, and by each image's own map if "
        "it was built without one",
        "T and β are weight-decayed, as in the authors' code; e, b, τ and the layers of B are not",
    ),
)
class AggregatedAttention(nn.Module):
    """Pixel-focused attention with learnable tokens (Shi, CVPR 2024), in the form of its native code.

    Args:
        dim: channels C.
        heads: each of d = C/heads consecutive channels.
        resolution: (H, W), by which the distances of the position bias are divided, and which
            `reduction=L/n` needs.
        kernel: K, odd.
        reduction: s, distance of pooled tokens; `L/n`: ⌊longer side / n⌋, at least 1.

    Raises:
        UserError: an even kernel, a reduction of another form or larger than the map.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        resolution: tuple[int, int] | None,
        *,
        kernel: int,
        reduction: int | str,
    ) -> None:
        odd_kernel("op.kernel", kernel)
        super().__init__()
        self.heads, self.resolution = heads, resolution
        self.kernel, self.reduction = kernel, reduced(reduction, resolution)
        self.region = NeighborhoodRegion(NeighborhoodConfig("neighborhood", kernel, 1, "mask"), path="op")
        width, taps = dim // heads, kernel**2
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.pool = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, dim)
        spread, gather = nn.Linear(2, HIDDEN), nn.Linear(HIDDEN, heads)
        self.distance = nn.Sequential(spread, nn.ReLU(), gather)
        self.temperature = nn.Parameter(torch.full((heads,), math.log(math.exp(1 / 0.24) - 1)))
        self.query_embedding = nn.Parameter(nn.init.trunc_normal_(torch.empty(heads, width), std=0.02))
        self.relative_position_bias_table = nn.Parameter(
            nn.init.trunc_normal_(torch.empty(heads, taps), std=4e-4)
        )
        self.tokens = nn.Parameter(nn.init.trunc_normal_(torch.empty(heads, width, taps), std=0.02))
        self.token_bias = nn.Parameter(torch.zeros(heads, taps))
        for layer in (self.query, self.key_value, self.output, spread, gather):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.pool.weight, std=math.sqrt(2 / dim))
        nn.init.zeros_(self.pool.bias)

    def no_weight_decay(self) -> set[str]:
        """Those of the authors' list: embedding, bias of neighbors, temperature, and the bias by distance."""
        names = {"query_embedding", "relative_position_bias_table", "temperature"}
        return names | {f"distance.{name}" for name, _ in self.distance.named_parameters()}

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C).

        Raises:
            UserError: a map smaller than the reduction.
        """
        height, width = x.shape[1:3]
        grid = height // self.reduction, width // self.reduction
        refuse_smaller(x.shape, self.reduction, "token")
        query = _unit(self.query(x), self.heads)  # (B, H, W, heads, d)
        key, value = self.key_value(x).chunk(2, -1)
        key = _unit(key, self.heads).flatten(-2)
        scaled = ((query + self.query_embedding) * self.scales(height, width, grid, x.device)).flatten(-2)
        near = self.region.content(
            scaled.to(key.dtype), key, self.heads, None, self.relative_position_bias_table
        )
        valid = self.region.valid(x.shape, x.device)
        assert valid is not None  # border `mask`
        near = near.masked_fill(~valid, float("-inf"))
        far_key, far_value = self.key_value(self.pooled(x, grid)).chunk(2, -1)
        far_key = split_heads(_unit(far_key, self.heads).flatten(-2), self.heads)
        far = split_heads(scaled.to(key.dtype), self.heads) @ far_key.transpose(-1, -2)  # (B, heads, L, P)
        far = far + self.bias_by_distance(height, width, grid, x.device)
        far = far.unflatten(2, (height, width)).permute(0, 2, 3, 1, 4)  # (B, H, W, heads, P)
        weights = torch.cat([near, far.to(near.dtype)], -1).softmax(-1)
        near, far = weights.split([self.kernel**2, grid[0] * grid[1]], -1)
        dynamic = torch.einsum("bhwgd,gdt->bhwgt", query, self.tokens.to(query.dtype)) + self.token_bias
        y = self.region.aggregate(value, near + dynamic.to(near.dtype), None, None, x.shape)
        far = far.permute(0, 3, 1, 2, 4).flatten(2, 3)  # (B, heads, L, P)
        return self.output(
            y + merge_heads(far @ split_heads(far_value, self.heads).to(far.dtype), height, width)
        )

    def scales(self, height: int, width: int, grid: tuple[int, int], device: torch.device) -> Tensor:
        """(H, W, heads, 1): the temperature times the logarithm of how many keys a position has."""
        keys = self.region.valid(torch.Size((1, height, width, 1)), device)
        assert keys is not None
        count = keys.sum(-1, keepdim=True) + grid[0] * grid[1]  # (H, W, 1, 1)
        return F.softplus(self.temperature)[:, None] * count.to(self.temperature.dtype).log()

    def pooled(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, H, W, C) → (B, rows, columns, C) of the grid."""
        pooled: Tensor = self.norm(pool_cells(F.gelu(self.pool(x)), grid))
        return pooled

    def bias_by_distance(
        self, height: int, width: int, grid: tuple[int, int], device: torch.device
    ) -> Tensor:
        """(heads, L, P): B(i, p), once for each distance that occurs."""
        rows, columns = self.resolution or (height, width)
        vertical, row = distances(height, grid[0], rows, device)
        horizontal, column = distances(width, grid[1], columns, device)
        pairs = torch.cartesian_prod(vertical, horizontal).to(self.temperature.dtype)
        table = self.distance(pairs).unflatten(0, (len(vertical), len(horizontal)))
        found = table[row[:, None, :, None], column[None, :, None, :]]  # (H, W, rows, columns, heads)
        return found.flatten(0, 1).flatten(1, 2).permute(2, 0, 1)

    def extra_repr(self) -> str:
        return f"heads={self.heads}, kernel={self.kernel}, reduction={self.reduction}"


@constant
def distances(length: int, cells: int, scale: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Log-spaced distances of positions from the middles of pooled cells, along one axis.

    Returns:
        The distances from the smallest to the largest, in float64, and which one each position and cell has,
        (length, cells).
    """
    # first plus last position of each cell: twice its middle, a whole number
    ends = [cell * length // cells - (-(cell + 1) * length // cells) - 1 for cell in range(cells)]
    step = 2 if len({end % 2 for end in ends}) == 1 else 1
    lowest, highest = -max(ends), 2 * (length - 1) - min(ends)
    index = (2 * torch.arange(length)[:, None] - torch.tensor(ends) - lowest) // step
    u = torch.arange(lowest, highest + 1, step).double() / 2 / max(scale - 1, 1) * 8
    return (u.sign() * (u.abs() + 1).log2() / 3).to(device), index.to(device)


def _unit(x: Tensor, heads: int) -> Tensor:
    """(…, C) → (…, heads, d) of length 1 each; zeros stay zero, in half precision too."""
    by_head = x.unflatten(-1, (heads, -1))
    exact = by_head.to(torch.promote_types(x.dtype, torch.float32))
    return F.normalize(exact, dim=-1).to(x.dtype)
