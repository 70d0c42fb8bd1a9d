"""The tensors that slide attention takes, in one tuple."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Inputs(NamedTuple):
    """Inputs of attention over neighbors that static filters mix."""

    query: Tensor  # (B, H, W, C), scaled as its logits are to be
    key: Tensor  # (B, H, W, C)
    value: Tensor  # (B, H, W, C)
    mix: Tensor  # w, (C/heads, K², K²)
    own: Tensor  # u, (C/heads, K²)
    table: Tensor  # b, (heads, K²)

    def images(self, part: slice) -> Inputs:
        """The maps of some images, and all tables."""
        return self._replace(query=self.query[part], key=self.key[part], value=self.value[part])
