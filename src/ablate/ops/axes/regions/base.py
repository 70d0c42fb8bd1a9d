"""The two classes of a level of the region axis: its settings, and the region itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ablate.ops.slot import Slot


@dataclass(frozen=True)
class RegionConfig(ABC):
    """Settings of a level of the region axis; the fields of a subclass are its settings.

    Attributes:
        sliding: the region moves with the position, so that moving the input moves the output.
    """

    name: str
    sliding: ClassVar[bool] = False

    @abstractmethod
    def check_values(self) -> None:
        """Refuse values that no map could take.

        Raises:
            UserError: names the setting.
        """

    @abstractmethod
    def check(self, slot: Slot) -> None:
        """Refuse a region that cannot exist in a slot.

        Raises:
            UserError: names the setting, and the largest value that fits.
        """

    def at(self, slot: Slot) -> RegionConfig:
        """Return the settings that hold in a slot, where one of them depends on it.

        Raises:
            UserError: the slot does not say what the setting depends on.
        """
        return self

    @abstractmethod
    def taps(self, slot: Slot) -> int:
        """Number of positions that one position meets; at least 4 where the map is not known."""

    @abstractmethod
    def build(self, slot: Slot, stride: int) -> Region:
        """Build the region of checked settings; `stride` is 1 unless `strides_itself`."""

    @abstractmethod
    def describe(self, normalized: bool) -> str:
        """Describe the region in a few words; `normalized` is False if there is no norm."""

    @property
    def strides_itself(self) -> bool:
        """True if filters can be made for every `stride`-th position only."""
        return False

    def without_norm(self) -> RegionConfig:
        """The same region where there is no norm, in the form that computes fastest."""
        return self


class Region(ABC):
    """One level of the region axis, bound to a slot."""

    offsets: int  # entries of a relative-position table
    taps: int  # positions that one position meets
    stride = 1  # of the positions that filters are made for
    positions: tuple[int, ...]  # dimensions of the queries in a tensor of logits
    head_dimension: int  # of the heads in it
    sides: tuple[int, int]  # rows and columns of a relative-position table, offset 0 in the middle
    dilation = 1  # positions between two of its rows or columns

    def prepare(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → the groups (B', H', W', C) that the region works on."""
        return x

    def restore(self, y: Tensor, shape: torch.Size) -> Tensor:
        """The groups back into a map of `shape`."""
        return y

    def centres(self, x: Tensor) -> Tensor:
        """(B', H', W', C) → the features at the positions that filters are made for."""
        return x

    def uniform(self, maps: Tensor, height: int, width: int) -> Tensor:
        """(B', 1, 1, G, offsets), the same for every query of a group → its entry at each tap's offset."""
        return self.at_query(maps.expand(-1, height, width, -1, -1))

    @abstractmethod
    def content(
        self,
        query: Tensor,
        key: Tensor,
        heads: int,
        key_position: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """q_i·k_j + r^q_Δ·k_j + r^b_Δ per head and tap, of tables (G, offsets, C/G) and (G, offsets)."""

    @abstractmethod
    def at_query(self, maps: Tensor) -> Tensor:
        """(B', H', W', G, offsets) at the query → its entry at each tap's offset."""

    @abstractmethod
    def at_key(self, maps: Tensor) -> Tensor:
        """(B', H', W', G, offsets) at the key → its entry at the query's offset to it; 0 outside the map."""

    @abstractmethod
    def table(self, table: Tensor, height: int, width: int) -> Tensor:
        """(G, offsets) → broadcastable over batch (and over positions, where all taps are alike)."""

    @abstractmethod
    def valid(self, shape: torch.Size, device: torch.device) -> Tensor | None:
        """Mask of the taps that count in the norm, broadcastable to logits; None if all do."""

    @abstractmethod
    def aggregate(
        self, values: Tensor, filters: Tensor, multiply: Tensor | None, add: Tensor | None, shape: torch.Size
    ) -> Tensor:
        """Σ_j (multiply · filters + add)_ij · values_j over the groups of a map of `shape`.

        The static factors are tables (C, offsets).
        What does not count in the norm has filter 0 there, and `add` does not reach it either.
        """

    def aggregate_at(
        self,
        groups: Tensor,
        values: Tensor,
        filters: Tensor,
        multiply: Tensor | None,
        add: Tensor | None,
        shape: torch.Size,
    ) -> Tensor:
        """`aggregate`, for a region whose taps depend on the features of the groups too."""
        return self.aggregate(values, filters, multiply, add, shape)

    @abstractmethod
    def attends(self, x: Tensor) -> bool:
        """Return True if `attend` is the faster way to plain softmax attention for groups such as these."""

    @abstractmethod
    def attend(self, query: Tensor, key: Tensor, values: Tensor, bias: Tensor, shape: torch.Size) -> Tensor:
        """Softmax attention in one pass with a bias (heads, offsets), over the groups of a `shape`."""


def position_products(x: Tensor, positions: Tensor) -> Tensor:
    """x · r_Δ of a table (G, offsets, C/G) for every offset: (B', H', W', G, offsets)."""
    return torch.einsum("bhwgd,god->bhwgo", x.unflatten(-1, (positions.shape[0], -1)), positions)
