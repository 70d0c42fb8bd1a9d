"""Checks of single values that data sets share."""

from __future__ import annotations

from ablate.errors import UserError


def require_whole(name: str, value: object, *, at_least: int) -> None:
    """Refuse what is not a whole number of at least `at_least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise UserError(f"{name} is {value!r}", f"it must be a whole number of at least {at_least}")


def require_between(name: str, value: object, low: float, high: float) -> None:
    """Refuse what is not a number in [low, high]."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise UserError(f"{name} is {value!r}", f"it must be a number from {low:g} to {high:g}")
