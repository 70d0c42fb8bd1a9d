"""The configuration: where its groups are, and groups of settings as typed dataclasses.

Imports nothing heavy, so that every verb can use it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from ablate import plugins
from ablate.errors import UserError, unknown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

CONF_OP = "op"  # the group of operators

Settings = TypeVar("Settings", bound="DataclassInstance")


@cache
def conf_dir() -> Path:
    """The folder `conf/`: inside an installed package, else at the top of the repository."""
    package = Path(__file__).resolve().parent
    for candidate in (package / "conf", package.parent.parent / "conf"):
        if (candidate / "train.yaml").exists():
            return candidate
    raise UserError(f"no configuration folder beside {package}", "reinstall the package: `pip install .`")


def conf_dirs() -> list[Path]:
    """The folder `conf/`, and those of the plug-ins that are loaded; a file in an earlier one counts."""
    others = [path for path in plugins.conf_dirs() if path.resolve() != conf_dir().resolve()]
    return [conf_dir(), *others]


def conf_file(*parts: str) -> Path | None:
    """A file in the first of `conf_dirs` that has it: `conf_file("op", "lsa.yaml")`; None if none has."""
    paths = (folder.joinpath(*parts) for folder in conf_dirs())
    return next((path for path in paths if path.exists()), None)


def read_settings(kind: type[Settings], path: str, config: Any, beside: tuple[str, ...] = ()) -> Settings:
    """An instance of the dataclass `kind` from a node of the configuration.

    Args:
        kind: its fields are the settings; their annotations say what is accepted: `str` (numbers
            too), `bool`, `int`, `float` (finite), each also with `| None`, `int | str`, `tuple[str, ...]`,
            `tuple[int, ...]` and `Mapping`. A field with a default may be left out.
        config: the node, a mapping from setting to value.
        path: where the node is, for messages, e.g. `op.region`.
        beside: settings that the caller has read itself, named in messages with the others.

    Raises:
        UserError: names the setting, what was given and what is possible.
    """
    known = {field.name: field for field in fields(kind)}
    names = list(known)
    if not isinstance(config, Mapping):
        raise UserError(f"{path}={config!r} is not a group of settings", f"give {', '.join(names)}")
    for key in config:
        if key not in names:
            raise unknown("setting", f"{path}.{key}", [f"{path}.{name}" for name in (*beside, *names)])
    for name, field in known.items():
        if name not in config and (field.default, field.default_factory) == (MISSING, MISSING):
            raise UserError(f"{path}.{name} is missing", f"settings: {', '.join(names)}")
    given = [name for name in names if name in config]
    return kind(**{name: convert(f"{path}.{name}", config[name], _text(known[name].type)) for name in given})


def _text(annotation: Any) -> str:
    """An annotation as it is written; where a module does not postpone them, it is a type."""
    return (
        annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)
    )


def convert(path: str, value: Any, annotation: str) -> Any:
    """A value of the type that an annotation names, see `read_settings`.

    Raises:
        UserError: names the setting at `path`, what was given and what is expected.
    """
    base, _, optional = annotation.partition(" | ")
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if value is None and optional == "None":
        return None
    if base == "str" and (isinstance(value, str) or number):
        return str(value)
    if base == "bool" and isinstance(value, bool):
        return value
    if base == "int" and number and isinstance(value, int):
        return value
    if annotation == "int | str" and isinstance(value, str):
        return value
    if base == "float" and number:
        return float(value)
    if base.startswith("Mapping") and isinstance(value, Mapping):
        return value
    if base.startswith("tuple") and isinstance(value, (list, tuple)):
        item = base.removeprefix("tuple[").partition(",")[0]
        return tuple(convert(path, part, item) for part in value)
    if base.startswith("tuple"):
        annotation = "a list, [a, b]" + (", or null" if optional else "")
    if base.startswith("Mapping"):
        annotation = "a group of settings, {name: value}" + (", or null" if optional else "")
    raise UserError(f"{path}={value!r} has the wrong type", f"expected {annotation}")
