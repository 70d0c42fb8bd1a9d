"""Windows that see the pooled map too."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ablate.kernels.geometry import constant
from ablate.kernels.layout import pool_cells
from ablate.ops.axes.regions.windows import WindowConfig, WindowRegion, pair_offsets
from ablate.ops.slot import Slot


@dataclass(frozen=True)
class WindowAndPooledConfig(WindowConfig):
    """The size² positions of a window, and the size² tokens of the pooled map."""

    def taps(self, slot: Slot) -> int:
        """Positions of a window, and as many tokens."""
        return 2 * self.size**2

    def build(self, slot: Slot, stride: int) -> WindowAndPooledRegion:
        """Build the region; blocks of odd `slot.index` are shifted."""
        return WindowAndPooledRegion(self, slot)

    def describe(self, normalized: bool) -> str:
        """Size and shift of the window, and the tokens."""
        return f"{super().describe(normalized)}, and {self.size}×{self.size} pooled tokens of the map"


class WindowAndPooledRegion(WindowRegion):
    """Windows whose positions also meet the mean features of a size × size grid over the whole map.

    A group (N, 2·size, size, C) is a window with the tokens below it, which are keys and values but no
    queries. A table of relative positions has an entry for each offset within the window, then one for
    each token.
    """

    def __init__(self, config: WindowAndPooledConfig, slot: Slot) -> None:
        super().__init__(config, slot)
        self.taps = 2 * self.size**2
        self.offsets += self.size**2

    def prepare(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B · windows, 2 · size, size, C).

        Raises:
            UserError: a map smaller than the window.
        """
        windows = super().prepare(x)
        tokens = pool_cells(x, (self.size, self.size))
        return torch.cat([windows, tokens.repeat_interleave(windows.shape[0] // x.shape[0], 0)], 1)

    def centres(self, x: Tensor) -> Tensor:
        """The features of the window."""
        return x[:, : self.size]

    def content(
        self,
        query: Tensor,
        key: Tensor,
        heads: int,
        key_position: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """(N, G, L, T) of the window's queries and all keys."""
        return super().content(self.centres(query), key, heads, key_position, bias)

    def at_query(self, maps: Tensor) -> Tensor:
        """(N, G, L, T): row i of the maps at the offset from i to j."""
        return super().at_query(self.centres(maps))

    def attend(self, query: Tensor, key: Tensor, values: Tensor, bias: Tensor, shape: torch.Size) -> Tensor:
        """Through `scaled_dot_product_attention`."""
        return super().attend(self.centres(query), key, values, bias, shape)

    def _seam(self, shape: torch.Size, device: torch.device) -> Tensor | None:
        """(windows, 1, L, T): tokens are seen from both sides."""
        mask = super()._seam(shape, device)
        return None if mask is None else torch.cat([mask, torch.ones_like(mask)], -1)

    def _offset(self, device: torch.device) -> Tensor:
        return offsets_and_tokens(self.size, device)


@constant
def offsets_and_tokens(size: int, device: torch.device) -> Tensor:
    """(L, T): index into a table of the offset of each position of the window, then of each token."""
    offsets = pair_offsets(size, size, device)
    tokens = (2 * size - 1) ** 2 + torch.arange(size**2, device=device)
    return torch.cat([offsets, tokens.expand(size**2, -1)], 1)
