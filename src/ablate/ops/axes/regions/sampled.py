"""Samples around each position, at places that its feature generates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ablate import kernels
from ablate.errors import UserError
from ablate.ops.axes.regions.base import RegionConfig
from ablate.ops.axes.regions.neighborhood import NeighborhoodConfig, NeighborhoodRegion, check_neighborhood
from ablate.ops.checks import odd_kernel, positive
from ablate.ops.slot import Slot


@dataclass(frozen=True)
class SampledConfig(RegionConfig):
    """The kernel² taps of a neighborhood, each moved by an offset of its own (Wang et al., 2023)."""

    kernel: int
    dilation: int
    groups: int
    sliding: ClassVar[bool] = True

    def check_values(self) -> None:
        """Refuse an even kernel, a dilation or number of groups below 1."""
        odd_kernel("op.region.kernel", self.kernel)
        positive("op.region.dilation", self.dilation)
        positive("op.region.groups", self.groups)

    def check(self, slot: Slot) -> None:
        """Refuse a kernel that is too large for the map, and groups that do not divide the channels."""
        if slot.resolution is not None:
            check_neighborhood(self.unmoved, slot.resolution)
        if slot.dim % self.groups:
            raise UserError(
                f"op.region.groups={self.groups} does not divide the {slot.dim} channels of this slot",
                "use op.region.groups=1, or the number of heads",
            )

    @property
    def unmoved(self) -> NeighborhoodConfig:
        """The neighborhood whose taps are moved."""
        return NeighborhoodConfig("neighborhood", self.kernel, self.dilation, "zero")

    def taps(self, slot: Slot) -> int:
        """K²."""
        return self.kernel**2

    def build(self, slot: Slot, stride: int) -> SampledRegion:
        """Build the region, at any stride."""
        return SampledRegion(self, slot.dim, stride)

    def describe(self, normalized: bool) -> str:
        """Size, as of a neighborhood with border zero."""
        return f"{self.kernel}×{self.kernel} samples, moved by offsets"

    @property
    def strides_itself(self) -> bool:
        """True: filters and offsets can be made for every `stride`-th position only."""
        return True


class SampledRegion(nn.Module, NeighborhoodRegion):
    """y_i = Σ_t F_{i,t} · v( p_i + Δ_t + o_{i,t} ), o = W x_i + b, bilinear between positions and 0 outside.

    W and b begin at zero, so that it begins as the neighborhood with border `zero`, and draws no random
    number. All channels of a group have the same offsets; a group is of several heads, or a head of several
    groups. With factors per channel (ghost head, static filters) it goes tap by tap and computes each sample
    again in the backward pass, so that no map is kept per tap.
    """

    def __init__(self, config: SampledConfig, dim: int, stride: int) -> None:
        nn.Module.__init__(self)
        NeighborhoodRegion.__init__(self, config.unmoved, stride)
        self.groups = config.groups
        self.weight = nn.Parameter(torch.zeros(config.groups * self.taps * 2, dim))
        self.bias = nn.Parameter(torch.zeros(config.groups * self.taps * 2))

    def places(self, groups: Tensor) -> Tensor:
        """(B, H, W, C) → Δ + o, (B, H', W', O, K², 2), in float32 or finer."""
        offsets = F.linear(self.centres(groups), self.weight, self.bias)
        exact = offsets.to(torch.promote_types(offsets.dtype, torch.float32))
        taps = kernels.sampled_sums.grid(self.kernel, self.dilation, groups.device)
        return taps + exact.unflatten(-1, (self.groups, self.taps, 2))

    def aggregate_at(
        self,
        groups: Tensor,
        values: Tensor,
        filters: Tensor,
        multiply: Tensor | None,
        add: Tensor | None,
        shape: torch.Size,
    ) -> Tensor:
        """`aggregate` at the places that the features generate; without factors per channel in one pass."""
        places = self.places(groups)
        alike = filters.shape[1:3] == (1, 1)
        if multiply is None and add is None and not alike:
            filters = filters.expand(*places.shape[:3], -1, -1)
            heads = max(filters.shape[3], self.groups)
            filters = filters.repeat_interleave(heads // filters.shape[3], 3)
            return kernels.sampled_sums.aggregate(values, filters, places, stride=self.stride)
        y = None
        for tap in range(self.taps):
            factors = None if multiply is None else multiply[:, tap], None if add is None else add[:, tap]
            one = checkpoint(
                self._tap,
                values,
                filters[..., tap],
                places[..., tap, :],
                *factors,
                use_reentrant=False,
                preserve_rng_state=False,  # nothing is drawn
            )
            y = one if y is None else y + one
        assert y is not None
        return y

    def _tap(
        self, values: Tensor, filters: Tensor, places: Tensor, multiply: Tensor | None, add: Tensor | None
    ) -> Tensor:
        """One tap with a factor for each channel: (B, H, W, C), (…, G), (B, H', W', O, 2), (C,) twice."""
        ones = torch.ones_like(places[..., 0], dtype=values.dtype)[..., None]
        sample = kernels.sampled_sums.aggregate(values, ones, places[..., None, :], stride=self.stride)
        factor = filters.to(sample.dtype).repeat_interleave(sample.shape[-1] // filters.shape[-1], -1)
        if multiply is not None:
            factor = factor * multiply.to(sample.dtype)
        if add is not None:
            factor = factor + add.to(sample.dtype)
        return factor * sample

    def extra_repr(self) -> str:
        return f"kernel={self.kernel}, dilation={self.dilation}, groups={self.groups}"
