"""Groups of settings into dataclasses: every key known, none missing, every value of its type."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from ablate.errors import UserError, unknown

Settings = TypeVar("Settings")


def read(kind: type[Settings], path: str, config: Any) -> Settings:
    """An instance of the dataclass `kind` from a node of the configuration.

    Args:
        kind: its fields are the settings; their annotations say what is accepted: `str` (numbers
            too), `bool`, `int`, `float` (finite), each also with `| None`, `tuple[str, ...]`,
            `tuple[int, ...]` and `Mapping`. A field with a default may be left out.
        path: where the node stands, for messages, e.g. `op.region`.

    Raises:
        UserError: names the setting, what was given and what is possible.
    """
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    optional = {
        field.name
        for field in fields(kind)  # type: ignore[arg-type]
        if (field.default, field.default_factory) != (MISSING, MISSING)
    }
    if not isinstance(config, Mapping):
        raise UserError(f"{path}={config!r} is not a group of settings", f"give {', '.join(names)}")
    for key in config:
        if key not in names:
            raise unknown("setting", f"{path}.{key}", [f"{path}.{name}" for name in names])
    for name in names:
        if name not in config and name not in optional:
            raise UserError(f"{path}.{name} is missing", f"settings: {', '.join(names)}")
    annotations = {field.name: str(field.type) for field in fields(kind)}  # type: ignore[arg-type]
    given = [name for name in names if name in config]
    return kind(**{name: convert(f"{path}.{name}", config[name], annotations[name]) for name in given})


def convert(path: str, value: Any, annotation: str) -> Any:
    """A value of the type that an annotation names, see `read`.

    Raises:
        UserError: names the setting at `path`, what was given and what is expected.
    """
    base, _, optional = annotation.partition(" | ")
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if value is None and optional:
        return None
    if base == "str" and (isinstance(value, str) or number):
        return str(value)
    if base == "bool" and isinstance(value, bool):
        return value
    if base == "int" and number and isinstance(value, int):
        return value
    if base == "float" and number:
        return float(value)
    if base.startswith("Mapping") and isinstance(value, Mapping):
        return value
    if base.startswith("tuple") and isinstance(value, (list, tuple)):
        item = base.removeprefix("tuple[").partition(",")[0]
        return tuple(convert(path, part, item) for part in value)
    if base.startswith("Mapping"):
        annotation = "a group of settings, {name: value}" + (", or null" if optional else "")
    raise UserError(f"{path}={value!r} has the wrong type", f"expected {annotation}")
