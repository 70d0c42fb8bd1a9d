"""Feature pyramid (Lin et al., 2017) over a host's maps, and regions cut out of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from ablate.hosts.features import Level

FINEST = 14  # side of a region, in positions of the finest map, from which on it is cut out of the next one
SAMPLES = 0  # per bin and axis: as many as there are positions
TINY = 1e-6


class Pyramid(nn.Module):
    """Maps of all a host's levels, with the same number of channels, and one half as fine as the coarsest."""

    def __init__(self, levels: Sequence[Level], channels: int) -> None:
        super().__init__()
        widths = [level.channels for level in levels]
        self.fusion = FeaturePyramidNetwork(widths, channels, extra_blocks=LastLevelMaxPool())
        self.reductions = [level.reduction for level in levels]
        self.reductions.append(2 * self.reductions[-1])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, C_i, H_i, W_i), the finest first → (B, channels, H_i, W_i), and one more."""
        named = OrderedDict((str(number), one) for number, one in enumerate(maps))
        return list(self.fusion(named).values())


def level_of(boxes: Tensor, levels: int, finest: float) -> Tensor:
    """Return the level that a region is cut out of: log₂ of its side by `finest`, rounded down.

    Args:
        boxes: (n, 4), pixels.
        levels: number of maps.
        finest: side of a region, in pixels, from which on it is cut out of the second finest map.
    """
    sides = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=0).sqrt()
    return torch.log2(sides / finest + TINY).floor().clamp(0, levels - 1).long()


class Regions(nn.Module):
    """RoIAlign (He et al., 2017) with aligned pixels and adaptive sampling, as mmdetection's.

    torchvision's `MultiScaleRoIAlign` takes two samples per bin, half a pixel beside the boxes.

    Args:
        side: height and width of what is cut out.
        reductions: pixels per position of each map, the finest first.
    """

    def __init__(self, side: int, reductions: Sequence[int]) -> None:
        super().__init__()
        self.side, self.reductions = side, tuple(reductions)

    def forward(self, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Cut each image's boxes out of its maps.

        Args:
            maps: (B, C, H, W) each, as many as `reductions`, the finest first.
            boxes: of each image, (n, 4) in pixels.

        Returns:
            (sum of n, C, side, side), the first image's first.
        """
        flat = torch.cat(list(boxes))
        of_image = torch.cat([one.new_full((len(one), 1), at) for at, one in enumerate(boxes)])
        rois = torch.cat([of_image, flat], 1)
        level = level_of(flat, len(self.reductions), FINEST * self.reductions[0])
        cut = maps[0].new_zeros((len(flat), maps[0].shape[1], self.side, self.side))
        for number, (one, reduction) in enumerate(zip(maps, self.reductions, strict=True)):
            here = (level == number).nonzero()[:, 0]
            exact = torch.promote_types(one.dtype, rois.dtype)  # corners in half precision are pixels off
            found = roi_align(one.to(exact), rois[here].to(exact), self.side, 1 / reduction, SAMPLES, True)
            cut = cut.index_put((here,), found.to(cut.dtype))
        return cut
