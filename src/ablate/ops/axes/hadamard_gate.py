"""The level `op/weights=hadamard_gate`: one weight per head and position for all of its taps (AttnConv)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.errors import UserError
from ablate.ops.axes.level import WeightsConfig
from ablate.ops.axes.norms import NormConfig, identity
from ablate.ops.axes.regions import Region
from ablate.ops.checks import odd_kernel
from ablate.ops.slot import Slot


@dataclass(frozen=True)
class HadamardGateConfig(WeightsConfig):
    """M(q_i⊙k_i), with M = 1×1, SiLU, 1×1: the same weight for all taps of a position (CloFormer)."""

    kernel: int
    scale: float | None

    def check_values(self) -> None:
        """Refuse an even kernel."""
        odd_kernel("op.weights.kernel", self.kernel)

    def check_norm(self, norm: NormConfig) -> None:
        """Refuse norms that leave nothing of a weight that is the same for all taps."""
        left = {
            "softmax": "1/taps whatever the weight is",
            "filter_norm": "0 everywhere",
            "softmax_decay": "γ^distance/taps whatever the weight is",
        }
        if norm.name in left:
            raise UserError(
                f"op/weights=hadamard_gate with op/norm={norm.name}: all taps of a position have the same "
                f"weight, of which this norm makes {left[norm.name]}",
                "use op/norm=tanh, identity or group_norm",
            )

    def build(self, slot: Slot, heads: int, region: Region) -> HadamardGateWeights:
        """Build the generator."""
        return HadamardGateWeights(self, slot.dim, heads, slot)


class GatedProduct(nn.Module):
    """tanh's argument in AttnConv: scale · W₂ silu(W₁ (q⊙k) + b₁) + b₂, the scale on all of it."""

    def __init__(self, dim: int, outputs: int, scale: float) -> None:
        super().__init__()
        self.mix, self.expand = nn.Linear(dim, dim), nn.Linear(dim, outputs)
        self.scale = scale

    def forward(self, product: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, outputs)."""
        y: Tensor = self.expand(F.silu(self.mix(product)))
        return y * self.scale


class HadamardGateWeights(nn.Module):
    """A_i[g] = scale · M(q_i⊙k_i), q and k through a depthwise K×K convolution (CloFormer, Fan et al., 2023).

    With a head per channel, op/norm=tanh and the ghost head λ=1, γ=0, F_ij[c] = o_Δ[c] · tanh(A_i[c]): the
    shape of a filter is static, its gain in (−1, 1) is dynamic. The convolution sees zeros outside a map or
    window. Initialised as convolutions are in PyTorch.
    """

    def __init__(self, config: HadamardGateConfig, dim: int, heads: int, slot: Slot) -> None:
        super().__init__()
        kernel, scale = config.kernel, config.scale
        self.query_key = nn.Linear(dim, 2 * dim)
        self.look = nn.Conv2d(2 * dim, 2 * dim, kernel, padding=kernel // 2, groups=2 * dim)
        self.gate = GatedProduct(dim, heads, (dim // slot.heads) ** -0.5 if scale is None else scale)

    def forward(self, x: Tensor, region: Region) -> Tensor:
        """Logits of (B', H', W', C) in the region's layout, the same for all taps."""
        gain = self.gain(x, region)
        return region.at_query(gain[..., None].expand(*gain.shape, region.offsets))

    def gain(self, x: Tensor, region: Region) -> Tensor:
        """A_i[g]: (B', H', W', C) → (B', H', W', heads) at the positions that filters are made for."""
        seen = self.look(self.query_key(region.centres(x)).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        query, key = seen.chunk(2, dim=-1)
        gain: Tensor = self.gate(query * key)
        return gain


def gated(
    values: Tensor,
    gain: Tensor,
    region: Region,
    multiply: Tensor | None,
    add: Tensor | None,
    shape: torch.Size,
) -> Tensor:
    """Σ_j (multiply_Δ · gain_i + add_Δ) · v_j = gain_i · Σ_j multiply_Δ v_j + Σ_j add_Δ v_j.

    The sums have static filters, so that no tensor has an entry for each tap and channel.

    Args:
        values: (B', H, W, C).
        gain: (B', H', W', G), G dividing C.
        region: whose taps they are.
        multiply: (C, offsets) or None.
        add: the same.
        shape: of the map, as for `region.aggregate`.

    Returns:
        (B', H', W', C).
    """
    heads, (height, width) = gain.shape[-1], values.shape[1:3]
    valid = region.valid(shape, values.device)

    def static(value: float, multiply: Tensor | None, add: Tensor | None) -> Tensor:
        table = region.table(values.new_full((1, region.offsets), value), height, width)
        return region.aggregate(values, identity(table, valid), multiply, add, shape)

    y = static(1.0, multiply, None)
    y = (y.unflatten(-1, (heads, -1)) * gain.to(y.dtype)[..., None]).flatten(-2)
    return y if add is None else y + static(0.0, None, add)
