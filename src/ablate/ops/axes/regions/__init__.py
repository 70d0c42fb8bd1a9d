"""The region axis: windows, sliding neighborhoods, the whole map.

A region turns a map into the groups it works on (`prepare`), says which (query, key) pairs meet at
which relative offset, and sums values with filters over its taps. Weight generators ask for
`content`, `at_query`, `at_key` and `table` and never see positions themselves.

Filters and logits have the layout that their region computes fastest in, taps always last:
sliding (B, H, W, G, T), all pairs (N, G, L, T) with N groups of L = T positions.
"""

from __future__ import annotations

from ablate.errors import UserError
from ablate.ops.axes.regions import neighborhood, windows
from ablate.ops.axes.regions.base import Region, position_products
from ablate.ops.axes.regions.neighborhood import (
    BORDERS,
    NeighborhoodConfig,
    NeighborhoodRegion,
    check_neighborhood,
)
from ablate.ops.axes.regions.windows import (
    SHIFTS,
    AllPairsRegion,
    GlobalConfig,
    GlobalRegion,
    WindowConfig,
    WindowRegion,
    check_window,
    pair_offsets,
    window_mask,
)
from ablate.ops.slot import Slot

__all__ = [
    "BORDERS",
    "LEVELS",
    "SHIFTS",
    "AllPairsRegion",
    "GlobalConfig",
    "GlobalRegion",
    "NeighborhoodConfig",
    "NeighborhoodRegion",
    "Region",
    "RegionConfig",
    "WindowConfig",
    "WindowRegion",
    "build",
    "check",
    "check_neighborhood",
    "check_values",
    "pair_offsets",
    "position_products",
    "taps",
    "window_mask",
]

RegionConfig = WindowConfig | NeighborhoodConfig | GlobalConfig
LEVELS: dict[str, type] = {"window": WindowConfig, "neighborhood": NeighborhoodConfig, "global": GlobalConfig}


def check_values(config: RegionConfig) -> None:
    """Refuse values that no map could take.

    Raises:
        UserError: names the setting.
    """
    if isinstance(config, WindowConfig):
        windows.check_values(config)
    elif isinstance(config, NeighborhoodConfig):
        neighborhood.check_values(config)


def check(config: RegionConfig, slot: Slot) -> None:
    """Refuse a region that cannot exist in a slot.

    Raises:
        UserError: names the setting, and the largest value that fits.
    """
    if isinstance(config, GlobalConfig) and slot.resolution is None:
        raise UserError(
            "op/region=global needs to know the map: its relative positions are learned for one size",
            "give resolution=(height, width)",
        )
    if slot.resolution is None:
        return
    if isinstance(config, NeighborhoodConfig):
        check_neighborhood(config, slot.resolution)
    elif isinstance(config, WindowConfig):
        check_window(config, slot.resolution)


def taps(config: RegionConfig, slot: Slot) -> int:
    """Number of positions that one position meets; at least 4 where the map is not known."""
    if isinstance(config, NeighborhoodConfig):
        return config.kernel**2
    if isinstance(config, WindowConfig):
        return config.size**2
    height, width = slot.resolution or (2, 2)
    return height * width


def build(config: RegionConfig, slot: Slot, stride: int) -> Region:
    """Build the region of a checked configuration; strides other than 1 exist for neighborhoods only."""
    if isinstance(config, WindowConfig):
        return WindowRegion(config, slot)
    if isinstance(config, NeighborhoodConfig):
        return NeighborhoodRegion(config, stride)
    assert slot.resolution is not None  # `check` has refused it
    return GlobalRegion(*slot.resolution)
