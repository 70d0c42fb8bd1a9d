"""Presets and levels of their four groups, read from `conf/op/`: the one place of an operator's defaults.

A plug-in has a folder `conf/op` of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ablate.configuration import CONF_OP, conf_dirs, conf_file
from ablate.errors import UserError, unknown
from ablate.ops.axes import AXES


def levels(axis: str) -> list[str]:
    """The named levels of an axis."""
    folders = (folder / CONF_OP / axis for folder in conf_dirs())
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


def level(axis: str, name: str) -> dict[str, Any]:
    """The settings of one level.

    Raises:
        UserError: no such level.
    """
    path = conf_file(CONF_OP, axis, f"{name}.yaml")
    if path is None:
        raise unknown(f"level of op/{axis}", name, levels(axis))
    return dict(_read(path))


def preset(name: str) -> dict[str, Any] | None:
    """The settings of `conf/op/<name>.yaml` with its levels filled in; None if there is no such file.

    Raises:
        UserError: it names a level or preset that does not exist, or is made of itself.
    """
    path = conf_file(CONF_OP, f"{name}.yaml")
    if path is None:
        return None
    settings = {key: value for key, value in _read(path).items() if key != "defaults"}
    chosen: dict[str, Any] = {}
    for base in _bases(name):
        chosen |= preset(base) or {}
    chosen |= {axis: level(axis, choice) for axis, choice in _levels_of(name).items()}
    for key, value in settings.items():  # a level's settings may be changed one by one, as in Hydra
        chosen[key] = {**chosen[key], **value} if key in chosen and isinstance(value, Mapping) else value
    return chosen


def override(settings: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with overrides as `ablate.ops.create` takes them.

    For an axis, a string names a level, a mapping changes settings of the present level (or of the
    level that its `name` gives); any other key replaces a setting.

    Raises:
        UserError: an unknown setting or level.
    """
    merged = dict(settings)
    for key, value in overrides.items():
        if key not in settings:
            raise unknown(f"setting of operator {settings.get('name')!r}:", key, settings)
        if key not in AXES or not isinstance(settings[key], Mapping):
            group = isinstance(value, Mapping) and isinstance(settings[key], Mapping)
            merged[key] = {**settings[key], **value} if group else value
        elif isinstance(value, str):
            merged[key] = level(key, value)
        else:
            base = settings[key]
            if "name" in value and value["name"] != base.get("name"):
                base = level(key, value["name"])
            merged[key] = {**base, **value}
    return merged


def comments(name: str) -> dict[str, str]:
    """Comments behind the settings in an operator's files: `op.region.kernel` → `odd`."""
    found: dict[str, str] = {}
    for axis, choice in _chosen(name).items():  # a level leaves unsaid what others of its axis say
        for each in [*levels(axis), choice]:
            found.update(_comments(conf_file(CONF_OP, axis, f"{each}.yaml"), f"op.{axis}."))
    return {**found, **_comments(conf_file(CONF_OP, f"{name}.yaml"), "op.")}


def _comments(path: Path | None, prefix: str) -> dict[str, str]:
    lines = [] if path is None else path.read_text(encoding="utf-8").splitlines()
    matches = (re.match(r"(\w+): .*?\s#\s*(.*)", line) for line in lines)
    return {prefix + match[1]: match[2] for match in matches if match}


def _chosen(name: str) -> dict[str, str]:
    """The levels that the defaults lists of a preset, and of those that it is made of, name."""
    found: dict[str, str] = {}
    for base in _bases(name):
        found |= _chosen(base)
    return found | _levels_of(name)


def _levels_of(name: str) -> dict[str, str]:
    """The levels that a preset's own defaults list names, also as `override region: window`."""
    groups = [default for default in _defaults(name) if isinstance(default, Mapping)]
    return {
        axis.removeprefix("override ").strip(): choice for group in groups for axis, choice in group.items()
    }


def _bases(name: str, within: tuple[str, ...] = ()) -> list[str]:
    """The presets that a preset's own defaults list names, whose settings it changes.

    Raises:
        UserError: one of them, or of theirs, does not exist, or is made of itself.
    """
    found = [base for base in _defaults(name) if isinstance(base, str) and base != "_self_"]
    for base in found:
        if base in (*within, name):
            raise UserError(f"conf/op/{base}.yaml is made of itself", "name other presets in its defaults")
        if conf_file(CONF_OP, f"{base}.yaml") is None:
            raise UserError(f"conf/op/{name}.yaml names {base!r}, which is no preset", "see `ablate ops`")
        _bases(base, (*within, name))
    return found


def _defaults(name: str) -> list[Any]:
    path = conf_file(CONF_OP, f"{name}.yaml")
    return [] if path is None else _read(path).get("defaults") or []


@cache
def _read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
