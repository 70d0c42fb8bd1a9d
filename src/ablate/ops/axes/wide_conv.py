"""The level `op/weights=wide_conv`: weights from a wide view of the surroundings (LS convolution)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ablate.errors import UserError
from ablate.ops.axes.level import WeightsConfig
from ablate.ops.axes.regions import Region, RegionConfig
from ablate.ops.checks import odd_kernel
from ablate.ops.slot import Slot


@dataclass(frozen=True)
class WideConvConfig(WeightsConfig):
    """The surroundings through a depthwise convolution of half the channels (LS convolution)."""

    kernel: int

    def check_values(self) -> None:
        """Refuse an even kernel."""
        odd_kernel("op.weights.kernel", self.kernel)

    def check(self, region: RegionConfig, slot: Slot) -> None:
        """Refuse an odd number of channels, which has no half."""
        if slot.dim % 2:
            raise UserError(
                f"op/weights=wide_conv computes with half of the {slot.dim} channels of this slot",
                "use an even number of channels",
            )

    def build(self, slot: Slot, heads: int, region: Region) -> WideConvWeights:
        """Build the generator."""
        return WideConvWeights(self, slot.dim, heads, region)


class WideConvWeights(nn.Module):
    """Large-kernel perception of LS convolution (Wang et al., CVPR 2025): one weight per head and offset.

    1×1 C → C/2, batch norm, ReLU, depthwise K×K, batch norm, 1×1, batch norm, ReLU, 1×1. The depthwise
    convolution sees zeros outside a map or window. Initialised as convolutions are in PyTorch.
    """

    def __init__(self, config: WideConvConfig, dim: int, heads: int, region: Region) -> None:
        super().__init__()
        inner, kernel = dim // 2, config.kernel
        self.heads = heads
        self.reduce = nn.Linear(dim, inner, bias=False)
        self.reduce_norm = nn.BatchNorm1d(inner)
        self.look = nn.Conv2d(inner, inner, kernel, padding=kernel // 2, groups=inner, bias=False)
        self.look_norm = nn.BatchNorm1d(inner)
        self.mix = nn.Linear(inner, inner, bias=False)
        self.mix_norm = nn.BatchNorm1d(inner)
        self.expand = nn.Linear(inner, heads * region.offsets)

    def forward(self, x: Tensor, region: Region) -> Tensor:
        """Logits of (B', H', W', C) in the region's layout."""
        inner = _normal(self.reduce(region.centres(x)), self.reduce_norm).relu()
        seen = _normal(self.look(inner.permute(0, 3, 1, 2)).permute(0, 2, 3, 1), self.look_norm)
        inner = _normal(self.mix(seen), self.mix_norm).relu()
        return region.at_query(self.expand(inner).unflatten(-1, (self.heads, -1)))


def _normal(x: Tensor, norm: nn.BatchNorm1d) -> Tensor:
    """Batch norm of (B', H', W', C) over all but the channels."""
    normal: Tensor = norm(x.flatten(0, 2))
    return normal.unflatten(0, x.shape[:3])
