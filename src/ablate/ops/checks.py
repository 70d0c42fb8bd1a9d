"""Refusals that operators of their own share; `path` is the setting's name in the message."""

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
            f"{path}={kernel} is even: a neighbourhood has a centre", f"use {kernel - 1} or {kernel + 1}"
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
