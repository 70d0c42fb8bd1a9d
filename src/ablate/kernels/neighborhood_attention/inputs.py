"""The tensors that attention takes, in one tuple."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Inputs(NamedTuple):
    """Inputs of neighborhood attention."""

    query: Tensor  # (B, H, W, C), scaled as its logits are to be
    key: Tensor  # (B, H, W, C)
    value: Tensor  # (B, H, W, C)
    bias: Tensor  # (heads, offsets)
    axial: Tensor | None  # (B, H, W, heads, 2 · offsets per axis), rows first

    @property
    def heads(self) -> int:
        """Number of heads."""
        return self.bias.shape[0]
