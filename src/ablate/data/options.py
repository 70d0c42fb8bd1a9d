"""Mappings of options into dataclasses, with every mistake named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from ablate.errors import UserError, unknown

Options = TypeVar("Options")


def parse(
    cls: type[Options], options: Mapping[str, Any], *, what: str, beside: tuple[str, ...] = ()
) -> Options:
    """An instance of the dataclass `cls` from its fields by name.

    Args:
        cls: a dataclass; its fields are the options, those without a default are required.
        options: values by field name.
        what: what an option is, for the message: `key of data set 'imagenet'`.
        beside: options that the caller has dealt with, named in the message with the others.

    Raises:
        UserError: an option is unknown, a required one is missing, or a value is not valid.
    """
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    for key in options:
        if key not in known:
            raise unknown(what, str(key), [*beside, *known])
    for key, field in known.items():
        if field.default is MISSING and key not in options:
            raise UserError(f"missing {what}: {key!r}", f"known: {', '.join(sorted([*beside, *known]))}")
    return cls(**options)


def require_whole(name: str, value: object, *, at_least: int) -> None:
    """Refuse what is not a whole number of at least `at_least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise UserError(f"{name} is {value!r}", f"it must be a whole number of at least {at_least}")


def require_between(name: str, value: object, low: float, high: float) -> None:
    """Refuse what is not a number in [low, high]."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise UserError(f"{name} is {value!r}", f"it must be a number from {low:g} to {high:g}")
