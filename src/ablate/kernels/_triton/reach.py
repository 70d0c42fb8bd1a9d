"""The transpose of `axis_taps`: for each position, the outputs that read it and their taps."""

from __future__ import annotations

import torch
from torch import Tensor

from ablate.kernels.geometry import Neighborhood, axis_taps, constant


@constant
def reach(length: int, neighborhood: Neighborhood, device: torch.device) -> Tensor:
    """(length, M) int32: output · kernel + tap of all that read a position along one axis, then −1.

    M is the most that read one position: `kernel` at stride 1 under `zero`, about kernel / stride
    with a stride, up to 1.5 · kernel where neighborhoods move inside and crowd at the border.
    """
    taps = axis_taps(length, neighborhood)
    pair = torch.arange(taps.position.numel()).view(taps.position.shape)[taps.valid]
    read, order = taps.position[taps.valid].sort(stable=True)
    count = read.bincount(minlength=length)
    place = torch.arange(len(read)) - (count.cumsum(0) - count)[read]
    table = torch.full((length, int(count.max())), -1, dtype=torch.int32)
    table[read, place] = pair[order].int()
    return table.to(device)
