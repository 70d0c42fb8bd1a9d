"""Sliding neighborhoods."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ablate import kernels
from ablate.errors import UserError, unknown
from ablate.kernels.geometry import MapTaps, Neighborhood, map_taps, strided
from ablate.kernels.layout import average_pool
from ablate.ops.axes.regions.base import Region, RegionConfig
from ablate.ops.checks import kernel_fits, odd_kernel, positive
from ablate.ops.slot import Slot

BORDERS = ("zero", "mask", "inside")
ALTERNATE = "alternate"  # dilation 1 in even blocks, the largest that fits in odd ones (DiNAT)


@dataclass(frozen=True)
class NeighborhoodConfig(RegionConfig):
    """The kernel² positions around each position, `dilation` apart: a number, or `alternate`."""

    kernel: int
    dilation: int | str
    border: str
    sliding: ClassVar[bool] = True

    def check_values(self) -> None:
        """Refuse an even kernel, a dilation below 1, an unknown border."""
        odd_kernel("op.region.kernel", self.kernel)
        if isinstance(self.dilation, int):
            positive("op.region.dilation", self.dilation)
        elif self.dilation != ALTERNATE:
            raise unknown("op.region.dilation, which is not a number:", self.dilation, (ALTERNATE,))
        if self.border not in BORDERS:
            raise unknown("op.region.border", self.border, BORDERS)

    def check(self, slot: Slot) -> None:
        """Refuse a kernel that is too large for the map."""
        if slot.resolution is not None:
            check_neighborhood(self, slot.resolution)

    def at(self, slot: Slot) -> NeighborhoodConfig:
        """With the dilation of the slot: `alternate` is 1 in even blocks, and ⌊side / K⌋ in odd ones.

        Raises:
            UserError: `alternate`, and the slot's map is not known.
        """
        if self.dilation != ALTERNATE:
            return self
        if slot.index % 2 == 0:
            return dataclasses.replace(self, dilation=1)
        if slot.resolution is None:
            raise UserError(
                f"op.region.dilation={ALTERNATE} needs to know the map: odd blocks have the largest dilation "
                "that fits",
                "give resolution=(height, width), or a number",
            )
        return dataclasses.replace(self, dilation=max(min(slot.resolution) // self.kernel, 1))

    def taps(self, slot: Slot) -> int:
        """K²."""
        return self.kernel**2

    def build(self, slot: Slot, stride: int) -> NeighborhoodRegion:
        """Build the region, at any stride."""
        return NeighborhoodRegion(self, stride)

    def describe(self, normalized: bool) -> str:
        """Size and border; without a norm all taps outside of the map are lost alike."""
        size = f"neighborhood {self.kernel}×{self.kernel}"
        size += ", dilated in odd blocks" if self.dilation == ALTERNATE else ""
        return size + (f", border {self.border}" if normalized else "")

    @property
    def strides_itself(self) -> bool:
        """True unless the neighborhood moves inside at the border."""
        return self.border != "inside"

    def without_norm(self) -> NeighborhoodConfig:
        """With border `zero` instead of `mask`: a tap outside of the map has value 0 under both.

        Under `zero`, static filters stay the same at every position, and are a convolution.
        """
        return dataclasses.replace(self, border="zero") if self.border == "mask" else self


class NeighborhoodRegion(Region):
    """K² positions around each position, or around every `stride`-th.

    Under border `inside`, a map too small for K real taps is first filled up with zeros at its right
    and bottom, as in NAT (Hassani et al., 2023); the filling takes part. A dilated kernel must fit.
    """

    positions, head_dimension = (1, 2), 3

    def __init__(self, config: NeighborhoodConfig, stride: int = 1, path: str = "op.region") -> None:
        assert isinstance(config.dilation, int)  # as it is in the slot
        self.config, self.path = config, path
        self.kernel, self.dilation, self.border = config.kernel, config.dilation, config.border
        self.stride = stride
        self.neighborhood = Neighborhood(config.kernel, config.dilation, config.border, stride)
        self.taps, self.offsets = self.neighborhood.taps, self.neighborhood.offsets
        side = 2 * config.kernel - 1 if config.border == "inside" else config.kernel
        self.sides = (side, side)

    def prepare(self, x: Tensor) -> Tensor:
        """The map, filled up to K positions a side where border `inside` needs them.

        Raises:
            UserError: border `inside`, and a kernel that is too large for the map.
        """
        if self.border != "inside":
            return x
        check_neighborhood(self.config, (x.shape[1], x.shape[2]), self.path)
        missing = [max(0, self.kernel - side) for side in x.shape[1:3]]
        return F.pad(x, (0, 0, 0, missing[1], 0, missing[0])) if any(missing) else x

    def restore(self, y: Tensor, shape: torch.Size) -> Tensor:
        """Cut the filling off."""
        return y[:, : shape[1], : shape[2]] if self.border == "inside" else y

    def centres(self, x: Tensor) -> Tensor:
        """The mean over the stride² positions that each output position represents."""
        return average_pool(x, self.stride)

    def uniform(self, maps: Tensor, height: int, width: int) -> Tensor:
        """Return the maps unchanged where tap t has offset t everywhere."""
        return super().uniform(maps, height, width) if self.border == "inside" else maps

    def content(
        self,
        query: Tensor,
        key: Tensor,
        heads: int,
        key_position: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """(B, H, W, G, T) through the `scores` kernel, all terms at once."""
        add = None if key_position is None else key_position.transpose(1, 2).flatten(0, 1)[None]
        return kernels.scores(
            query,
            key,
            heads,
            kernel=self.kernel,
            dilation=self.dilation,
            border=self.border,
            add=add,  # (1, C, offsets)
            bias=bias,
        )

    def at_query(self, maps: Tensor) -> Tensor:
        """A gather only where the neighborhood moves inside: else tap t has offset t everywhere."""
        if self.border != "inside":
            return maps
        offset = self._offset(maps.shape[1], maps.shape[2], maps.device)  # (H, W, T)
        return maps.gather(-1, offset[None, :, :, None].expand(*maps.shape[:-1], -1))

    def at_key(self, maps: Tensor) -> Tensor:
        """The neighbor's map at the offset between the two."""
        height, width, offsets = maps.shape[1], maps.shape[2], maps.shape[-1]
        found = self._taps(height, width, maps.device)
        flat = F.pad(
            maps.flatten(1, 2).transpose(1, 2), (0, 0, 0, 1)
        )  # (B, G, L + 1, offsets), last: outside
        picked = flat.flatten(2)[:, :, (found.neighbor * offsets + found.offset).flatten()]
        return picked.unflatten(-1, (height, width, self.taps)).permute(0, 2, 3, 1, 4)

    def table(self, table: Tensor, height: int, width: int) -> Tensor:
        """(1, 1, 1, G, T), or (1, H, W, G, T) where the neighborhood moves inside."""
        if self.border != "inside":
            return table[None, None, None]
        offset = self._offset(height, width, table.device)
        return table[:, offset].permute(1, 2, 0, 3)[None]

    def valid(self, shape: torch.Size, device: torch.device) -> Tensor | None:
        """(H', W', 1, T) under border `mask`; elsewhere every tap counts."""
        if self.border != "mask":
            return None
        _, height, width, _ = shape
        valid = self._taps(height, width, device).valid
        return valid.view(strided(height, self.stride), strided(width, self.stride), 1, self.taps)

    def aggregate(
        self, values: Tensor, filters: Tensor, multiply: Tensor | None, add: Tensor | None, shape: torch.Size
    ) -> Tensor:
        """Through the `aggregate` kernel."""
        return kernels.aggregate(
            values,
            filters,
            **self.neighborhood._asdict(),
            multiply=None if multiply is None else multiply[None],
            add=None if add is None else add[None],
        )

    def attends(self, x: Tensor) -> bool:
        """Return True: the `attention` kernel is always the faster way."""
        return True

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        values: Tensor,
        bias: Tensor,
        shape: torch.Size,
        axial: Tensor | None = None,
    ) -> Tensor:
        """Through the `attention` kernel, which also takes logits of row and column offsets."""
        return kernels.attention(
            query,
            key,
            values,
            bias,
            axial=axial,
            kernel=self.kernel,
            dilation=self.dilation,
            border=self.border,
        )

    def _offset(self, height: int, width: int, device: torch.device) -> Tensor:
        return self._taps(height, width, device).offset.view(height, width, self.taps)

    def _taps(self, height: int, width: int, device: torch.device) -> MapTaps:
        return map_taps(height, width, self.neighborhood, device)


def check_neighborhood(
    region: NeighborhoodConfig, resolution: tuple[int, int], path: str = "op.region"
) -> None:
    """Refuse a neighborhood that is too large for a map; `path` is where its settings are.

    Raises:
        UserError: see `checks.kernel_fits`.
    """
    assert isinstance(region.dilation, int)
    kernel_fits(
        f"{path}.kernel",
        region.kernel,
        region.dilation,
        region.border,
        resolution,
        dilation_path=f"{path}.dilation",
    )
