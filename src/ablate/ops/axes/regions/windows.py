"""Windows, and the whole map as one window."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ablate.errors import UserError, unknown
from ablate.kernels.geometry import constant
from ablate.kernels.layout import split_heads
from ablate.kernels.precision import in_autocast
from ablate.ops.axes.regions.base import Region, RegionConfig, position_products
from ablate.ops.checks import positive
from ablate.ops.slot import PAD_THEN_ROLL, Slot

SHIFTS = ("alternate", "none")


@dataclass(frozen=True)
class WindowConfig(RegionConfig):
    """Non-overlapping windows of size², shifted by half in odd blocks (Swin)."""

    size: int
    shift: str

    def check_values(self) -> None:
        """Refuse a size below 1, an unknown shift."""
        positive("op.region.size", self.size)
        if self.shift not in SHIFTS:
            raise unknown("op.region.shift", self.shift, SHIFTS)

    def check(self, slot: Slot) -> None:
        """Refuse a window that is larger than the map."""
        if slot.resolution is not None and self.size > min(slot.resolution):
            height, width = slot.resolution
            raise UserError(
                f"op.region.size={self.size}: the window is larger than the map of {height}×{width}",
                f"use op.region.size={min(height, width)} or less, op/region=global, or fill earlier stages "
                "(host.stages)",
            )

    def taps(self, slot: Slot) -> int:
        """Positions of a window."""
        return self.size**2

    def build(self, slot: Slot, stride: int) -> WindowRegion:
        """Build the region; blocks of odd `slot.index` are shifted."""
        return WindowRegion(self, slot)

    def describe(self, normalized: bool) -> str:
        """Size and shift."""
        return f"window {self.size}×{self.size}" + (", shifted" if self.shift == "alternate" else "")


@dataclass(frozen=True)
class GlobalConfig(RegionConfig):
    """The whole map."""

    def check_values(self) -> None:
        """Nothing to check: it has no settings."""

    def check(self, slot: Slot) -> None:
        """Refuse a slot whose map is not known."""
        if slot.resolution is None:
            raise UserError(
                "op/region=global needs to know the map: its relative positions are learned for one size",
                "give resolution=(height, width)",
            )

    def taps(self, slot: Slot) -> int:
        """Positions of the map."""
        height, width = slot.resolution or (2, 2)
        return height * width

    def build(self, slot: Slot, stride: int) -> GlobalRegion:
        """Build the region for the map of the slot."""
        assert slot.resolution is not None  # `check` has refused it
        return GlobalRegion(*slot.resolution)

    def describe(self, normalized: bool) -> str:
        """The map."""
        return "whole map"


class AllPairsRegion(Region):
    """Every position of a group meets every other: windows, and the whole map as one window."""

    positions, head_dimension = (2,), 1

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.taps = height * width
        self.sides = (2 * height - 1, 2 * width - 1)
        self.offsets = self.sides[0] * self.sides[1]

    def content(
        self,
        query: Tensor,
        key: Tensor,
        heads: int,
        key_position: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """(N, G, L, L)."""
        logits = split_heads(query, heads) @ split_heads(key, heads).transpose(-1, -2)
        if key_position is not None:
            logits = logits + self.at_key(position_products(key, key_position))
        return logits if bias is None else logits + self.table(bias, self.height, self.width)

    def at_query(self, maps: Tensor) -> Tensor:
        """(N, G, L, L): row i of the maps at the offset from i to j."""
        by_head = maps.flatten(1, 2).transpose(1, 2)  # (N, G, L, offsets)
        return by_head.gather(-1, self._offset(maps.device).expand(*by_head.shape[:2], -1, -1))

    def at_key(self, maps: Tensor) -> Tensor:
        """(N, G, L, L): row j of the maps at the offset from i to j."""
        by_head = maps.flatten(1, 2).transpose(1, 2)
        offset = self._offset(maps.device).T  # (j, i)
        return by_head.gather(-1, offset.expand(*by_head.shape[:2], -1, -1)).transpose(-1, -2)

    def table(self, table: Tensor, height: int, width: int) -> Tensor:
        """(1, G, L, L)."""
        return table[:, self._offset(table.device)][None]

    def valid(self, shape: torch.Size, device: torch.device) -> Tensor | None:
        """Every pair."""
        return None

    def aggregate(
        self, values: Tensor, filters: Tensor, multiply: Tensor | None, add: Tensor | None, shape: torch.Size
    ) -> Tensor:
        """Matrix products per head; with a ghost multiplication per channel."""
        channels, values = values.shape[-1], in_autocast(values)
        filters = filters.to(values.dtype)
        if multiply is not None:
            filters = _per_channel(filters, channels) * self.table(multiply, self.height, self.width).to(
                values.dtype
            )
        if filters.shape[0] == 1:  # static: one filter for all groups, not to be copied for each
            by_head = values.flatten(1, 2).unflatten(-1, (filters.shape[1], -1))
            y = torch.einsum("glt,ntgd->nlgd", filters[0], by_head).flatten(2)
        else:
            y = (filters @ split_heads(values, filters.shape[1])).transpose(1, 2).flatten(2)  # (N, L, C)
        if add is not None:  # the sum is linear in the filters
            y = y + self._static(
                self.table(add, self.height, self.width)[0].to(values.dtype), values.flatten(1, 2), shape
            )
        return y.unflatten(1, (self.height, self.width))

    def attends(self, x: Tensor) -> bool:
        """Return True on CUDA unless deterministic algorithms are enabled.

        Under `torch.use_deterministic_algorithms(True, warn_only=True)` the gradients of
        `scaled_dot_product_attention` may differ from run to run: PyTorch makes its fused backward passes
        deterministic without `warn_only` only. Its parts, matrix products, indexing and softmax, are
        deterministic either way. On a CPU, with a trainable bias, it takes 1.3 to 1.6 times as long as its
        parts, forward and backward, in 7×7 windows of Swin-T's stages 1 to 3.
        """
        return not torch.are_deterministic_algorithms_enabled() and x.is_cuda

    def attend(self, query: Tensor, key: Tensor, values: Tensor, bias: Tensor, shape: torch.Size) -> Tensor:
        """Through `scaled_dot_product_attention`."""
        mask, heads = self.table(bias, self.height, self.width).to(query.dtype), bias.shape[0]
        valid = self.valid(shape, query.device)
        if valid is not None:
            mask = mask.masked_fill(~valid, float("-inf"))
        q, k, v = (split_heads(x.to(query.dtype), heads) for x in (query, key, values))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
        return y.transpose(1, 2).reshape(query.shape)

    def _static(self, add: Tensor, values: Tensor, shape: torch.Size) -> Tensor:
        """The sum with one filter per channel for all groups: (C, L, T), (N, T, C) → (N, L, C)."""
        return torch.einsum("clt,ntc->nlc", add, values)

    def _offset(self, device: torch.device) -> Tensor:
        return pair_offsets(self.height, self.width, device)


class GlobalRegion(AllPairsRegion):
    """The whole map, of the one size that its relative positions are learned for."""

    def prepare(self, x: Tensor) -> Tensor:
        """The map as it is.

        Raises:
            UserError: a map of another size.
        """
        if x.shape[1:3] != (self.height, self.width):
            raise UserError(
                f"op/region=global was built for a map of {self.height}×{self.width}, "
                f"this one is {x.shape[1]}×{x.shape[2]}",
                "build the host for this image size, or use op/region=neighborhood",
            )
        return x


class WindowRegion(AllPairsRegion):
    """Non-overlapping windows; in odd blocks shifted by half a window, as in Swin (Liu et al., 2021).

    A map that windows do not tile is filled up with zeros at its right and bottom, and the filling
    takes part in the norm. By the slot's `shift_order` the map is rolled before it is filled up, as in
    timm, so that the seam of a shift is at the filled edge; or after it, as in the detectors and
    segmenters of Swin's and ELSA's authors. A map that is one window is not shifted in timm's order, as in
    timm; in the authors' order it is shifted like every other.
    """

    def __init__(self, config: WindowConfig, slot: Slot, setting: str = "op.region.size") -> None:
        super().__init__(config.size, config.size)
        self.size, self.setting = config.size, setting
        self.target_shift = config.size // 2 if config.shift == "alternate" and slot.index % 2 else 0
        self.pads_first = slot.shift_order == PAD_THEN_ROLL

    def prepare(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B · windows, size, size, C).

        Raises:
            UserError: a map smaller than the window.
        """
        batch, height, width, channels = x.shape
        if min(height, width) < self.size:
            raise UserError(
                f"{self.setting}={self.size}: the window is larger than the map of {height}×{width}",
                f"use {self.setting}={min(height, width)} or less",
            )
        filled = (0, 0, 0, -width % self.size, 0, -height % self.size)
        shift = self._shifts(height, width)
        if self.pads_first:
            x = F.pad(x, filled)
        if any(shift):
            x = x.roll((-shift[0], -shift[1]), (1, 2))
        if not self.pads_first:
            x = F.pad(x, filled)
        rows, columns = x.shape[1] // self.size, x.shape[2] // self.size
        x = x.view(batch, rows, self.size, columns, self.size, channels).transpose(2, 3)
        return x.reshape(batch * rows * columns, self.size, self.size, channels)

    def restore(self, y: Tensor, shape: torch.Size) -> Tensor:
        """(B · windows, size, size, C) → (B, H, W, C)."""
        (batch, height, width), channels = shape[:3], y.shape[-1]
        rows, columns = self._tiles(height, width)
        y = y.view(batch, rows, columns, self.size, self.size, channels).transpose(2, 3)
        y = y.reshape(batch, rows * self.size, columns * self.size, channels)
        shift = self._shifts(height, width)
        if not self.pads_first:
            y = y[:, :height, :width]
        if any(shift):
            y = y.roll(shift, (1, 2))
        return y[:, :height, :width]

    def valid(self, shape: torch.Size, device: torch.device) -> Tensor | None:
        """(N, 1, L, L) in shifted blocks: no pairs across the seam of the roll."""
        mask = self._seam(shape, device)
        return None if mask is None else mask.repeat(shape[0], 1, 1, 1)

    def _static(self, add: Tensor, values: Tensor, shape: torch.Size) -> Tensor:
        """Add static filters; in shifted blocks a filter ends at the seam, which differs between windows."""
        mask = self._seam(shape, values.device)
        if mask is None:
            return super()._static(add, values, shape)
        by_image = values.unflatten(0, (shape[0], mask.shape[0]))  # (B, windows, T, C)
        return torch.einsum("wclt,bwtc->bwlc", add * mask, by_image).flatten(0, 1)

    def _seam(self, shape: torch.Size, device: torch.device) -> Tensor | None:
        """(windows, 1, L, L): which pairs were neighbors before the roll; None without a shift."""
        _, height, width, _ = shape
        shift = self._shifts(height, width)
        return window_mask(*self._tiles(height, width), self.size, shift, device) if any(shift) else None

    def _tiles(self, height: int, width: int) -> tuple[int, int]:
        return -(-height // self.size), -(-width // self.size)

    def _shifts(self, height: int, width: int) -> tuple[int, int]:
        least = 0 if self.pads_first else self.size
        return self.target_shift if height > least else 0, self.target_shift if width > least else 0


@constant
def pair_offsets(height: int, width: int, device: torch.device) -> Tensor:
    """(L, L): flat index of the offset j - i into a (2·height - 1)(2·width - 1) table."""
    rows = torch.arange(height).repeat_interleave(width)
    columns = torch.arange(width).repeat(height)
    row = rows[None, :] - rows[:, None] + height - 1
    column = columns[None, :] - columns[:, None] + width - 1
    return (row * (2 * width - 1) + column).to(device)


@constant
def window_mask(rows: int, columns: int, size: int, shift: tuple[int, int], device: torch.device) -> Tensor:
    """(windows, 1, L, L): True for pairs that were neighbors before the roll."""

    def part(count: int, shift: int) -> Tensor:
        length = count * size
        position = torch.arange(length)
        return (position >= length - size).long() + (position >= length - shift).long() * (shift > 0)

    region = part(rows, shift[0])[:, None] * 3 + part(columns, shift[1])[None, :]
    region = region.view(rows, size, columns, size).transpose(1, 2).reshape(rows * columns, size * size)
    return (region[:, None, :] == region[:, :, None])[:, None].to(device)


def _per_channel(filters: Tensor, channels: int) -> Tensor:
    """(N, G, L, T) → (N, C, L, T)."""
    return filters.repeat_interleave(channels // filters.shape[1], dim=1)
