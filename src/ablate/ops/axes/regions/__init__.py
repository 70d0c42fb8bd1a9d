"""The region axis: windows (with pooled tokens too), sliding neighborhoods, moved samples, the whole map.

A region turns a map into the groups it works on (`prepare`), says which (query, key) pairs meet at which
relative offset, and sums values with filters over its taps. Weight generators use `content`, `at_query`,
`at_key` and `table` and never see positions themselves. Each region chooses its tensor layout; the tap
dimension is last: sliding (B, H, W, G, T), all pairs (N, G, L, T) with N groups of L
positions and T = L taps, or more with tokens.

A new region is one file here, with a `RegionConfig` and a `Region`, one line in `LEVELS`, and its defaults in
`conf/op/region/<name>.yaml`. Start reading in `base`.
"""

from __future__ import annotations

from ablate.ops.axes.regions.base import Region, RegionConfig, position_products
from ablate.ops.axes.regions.neighborhood import (
    ALTERNATE,
    BORDERS,
    NeighborhoodConfig,
    NeighborhoodRegion,
    check_neighborhood,
)
from ablate.ops.axes.regions.sampled import SampledConfig, SampledRegion
from ablate.ops.axes.regions.window_and_pooled import WindowAndPooledConfig, WindowAndPooledRegion
from ablate.ops.axes.regions.windows import (
    SHIFTS,
    AllPairsRegion,
    GlobalConfig,
    GlobalRegion,
    WindowConfig,
    WindowRegion,
    pair_offsets,
    window_mask,
)

__all__ = [
    "ALTERNATE",
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
    "SampledConfig",
    "SampledRegion",
    "WindowAndPooledConfig",
    "WindowAndPooledRegion",
    "WindowConfig",
    "WindowRegion",
    "check_neighborhood",
    "pair_offsets",
    "position_products",
    "window_mask",
]

LEVELS: dict[str, type[RegionConfig]] = {
    "window": WindowConfig,
    "neighborhood": NeighborhoodConfig,
    "global": GlobalConfig,
    "window_and_pooled": WindowAndPooledConfig,
    "sampled": SampledConfig,
}
