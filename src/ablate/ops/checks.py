"""Checks of settings that operators share; `path` is the name of the setting in the message."""

from __future__ import annotations

from ablate.errors import UserError


def odd_kernel(path: str, kernel: int) -> None:
    """Refuse a kernel without a centre.

    Raises:
        UserError: even, zero or negative.
    """
    positive(path, kernel)
    if kernel % 2 == 0:
        raise UserError(
            f"{path}={kernel} is even: a neighborhood has a centre", f"use {kernel - 1} or {kernel + 1}"
        )


def positive(path: str, value: int | float) -> None:
    """Refuse what is not above zero.

    Raises:
        UserError: zero or negative.
    """
    if value <= 0:
        raise UserError(
            f"{path}={value} is not positive",
            "use 1 or more" if isinstance(value, int) else "use more than 0",
        )


PUBLISHED_KERNEL = 7


def kernel_fits(
    path: str,
    kernel: int,
    dilation: int,
    border: str,
    resolution: tuple[int, int],
    *,
    dilation_path: str = "",
) -> None:
    """Refuse a sliding kernel that is too large for a map of `resolution`.

    With L the map's shorter side:

    - Dilation 1: K may be 2L − 1, the largest kernel of which every tap meets some position. Kernels up to
      7 are accepted on any map: networks such as ConvNeXt apply them on the 3×3 or 1×1 maps that small
      images leave in the last stage, where surplus taps cost next to nothing.
    - Dilation δ above 1: the outermost taps must meet some position, δ · (K − 1) / 2 < L. Under `inside`,
      where every position needs K real taps, K · δ ≤ L, as in NATTEN.

    A map that is filled up to the kernel (`inside`) has thus at most 2L − 1 or 7 positions a side.

    Raises:
        UserError: with the largest kernel or dilation that fits.
    """
    side, radius = min(resolution), (kernel - 1) // 2
    size = f"the map of {resolution[0]}×{resolution[1]}"
    if dilation == 1:
        largest = max(2 * side - 1, PUBLISHED_KERNEL)
        if kernel > largest:
            raise UserError(
                f"{path}={kernel} is too large for {size}: no position has a neighbor {radius} away",
                f"use {path}={largest} or less, or fill earlier stages (host.stages)",
            )
        return
    inside = border == "inside"
    fits = kernel * dilation <= side if inside else dilation * radius < side
    if not fits:
        needed = kernel * dilation if inside else dilation * radius + 1
        largest = side // kernel if inside else (side - 1) // max(radius, 1)
        raise UserError(
            f"{path}={kernel} with {dilation_path}={dilation} does not fit on {size}: it needs {needed} "
            "positions a side",
            f"use {dilation_path}={max(largest, 1)}, a smaller {path}, or fill earlier stages (host.stages)",
        )
