"""Static factors of a sum, one number per channel and relative offset, as the taps form takes them."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor


def arguments(**factors: Tensor | None) -> dict[str, Tensor | int | None]:
    """Named factors (B or 1, C, offsets) as (B or 1, offsets, C), and elements from image to image.

    Neighbouring threads have neighbouring channels, which are then read together.
    """
    found: dict[str, Tensor | int | None] = {}
    for name, factor in factors.items():
        found[name] = None if factor is None else factor.transpose(1, 2).contiguous()
        found[f"{name}_step"] = 0 if factor is None or len(factor) == 1 else factor[0].numel()
    return found


@triton.jit
def first_offset(
    position: tl.tensor,
    neighbor: tl.tensor,
    K: tl.constexpr,
    DILATION: tl.constexpr,
    BORDER: tl.constexpr,
) -> tl.tensor:
    """The relative offset of tap 0, which meets `neighbor`, along one axis; the others follow."""
    if BORDER == "inside":
        return (neighbor - position) // DILATION + K - 1
    else:
        return tl.zeros_like(position)
