"""Static factors of a sum, one number per channel and relative offset, as the taps form takes them."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

TAPS = 4


def arguments(**factors: Tensor | None) -> dict[str, Tensor | int | None]:
    """Named factors (B or 1, C, offsets) as (B or 1, offsets, C), and 1 where each image has its own.

    Neighboring threads have neighboring channels, which are then read together.
    """
    found: dict[str, Tensor | int | None] = {}
    for name, factor in factors.items():
        found[name] = None if factor is None else factor.transpose(1, 2).contiguous()
        found[f"{name}_apart"] = int(factor is not None and len(factor) > 1)
    return found


def taps_held(taps: int, *factors: Tensor | None) -> int:
    """Taps of a row that a program holds at a time: each takes the registers of its factors too."""
    return taps if all(factor is None for factor in factors) else min(taps, TAPS)


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


@triton.jit
def of_image(factor: tl.tensor, image: tl.tensor, apart: tl.tensor, size: tl.tensor) -> tl.tensor:
    """The factors of one image, `size` elements."""
    return factor + image * apart * size


@triton.jit
def filtered(
    weight: tl.tensor, multiply: tl.tensor, add: tl.tensor, at: tl.tensor, real: tl.tensor
) -> tl.tensor:
    """A head's filters with the factors of its channels, weight · multiply + add, in float32."""
    weight = weight.to(tl.float32)
    if multiply is not None:
        weight = weight * tl.load(multiply + at, mask=real, other=0.0).to(tl.float32)
    if add is not None:
        weight = weight + tl.load(add + at, mask=real, other=0.0).to(tl.float32)
    return weight
