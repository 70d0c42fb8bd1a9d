"""Distance of the keys that global attention leaves of a map."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ablate.errors import UserError
from ablate.ops.checks import positive


def reduced(reduction: int | str, resolution: tuple[int, int] | None) -> int:
    """Number of positions per key along an axis: an integer, or `L/n` for ⌊longer side / n⌋, at least 1.

    Raises:
        UserError: neither form; `L/n` without a map; more than the map has.
    """
    if isinstance(reduction, str) and (match := re.fullmatch(r"L/([1-9]\d*)", reduction)):
        if resolution is None:
            raise UserError(
                f"op.reduction={reduction} needs to know the map",
                "give resolution=(height, width), or an integer",
            )
        return max(1, max(resolution) // int(match[1]))
    if isinstance(reduction, str) and not re.fullmatch(r"-?\d+", reduction):
        raise UserError(
            f"op.reduction={reduction} is not a distance of keys", "use an integer, or L/7 for 7 keys a side"
        )
    positive("op.reduction", int(reduction))
    if resolution is not None and int(reduction) > min(resolution):
        raise UserError(
            f"op.reduction={reduction} leaves no key of the map of {resolution[0]}×{resolution[1]}",
            f"use op.reduction={min(resolution)} or less",
        )
    return int(reduction)


def refuse_smaller(shape: Sequence[int], reduction: int, left: str) -> None:
    """Refuse a map (B, H, W, C) that is smaller than the reduction; `left` is what it would leave none of.

    Raises:
        UserError: names the largest reduction that fits.
    """
    height, width = shape[1:3]
    if min(height, width) < reduction:
        raise UserError(
            f"op.reduction={reduction} leaves no {left} of a map of {height}×{width}",
            f"use op.reduction={min(height, width)} or less",
        )
