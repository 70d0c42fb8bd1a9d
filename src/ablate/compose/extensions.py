"""Plug-ins that a command line or a run's configuration names, loaded before anything else asks for them.

Reading somebody's runs must not run their code. A plug-in that a run folder names is therefore loaded only if
this user has named it before, in a command; these are listed in a file of the user's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablate import plugins
from ablate.errors import UserError
from ablate.store.files import read_json, write_json

SETTING = "infra.plugins"


def typed(arguments: Sequence[str]) -> list[str]:
    """Return the plug-ins that the words of a command line name: `infra.plugins=[mine.py,package]`.

    Raises:
        UserError: a value that is not a list of names.
    """
    names: list[str] = []
    for word in arguments:
        key, found, _ = word.partition("=")
        if found and key.lstrip("+") == SETTING:
            names = _names(_value(word))
    return names


def load_typed(arguments: Sequence[str]) -> list[str]:
    """Load the plug-ins that a command line names, and remember that this user has named them.

    Returns:
        Those that it names.

    Raises:
        UserError: one of them cannot be loaded.
    """
    names = [plugins.absolute(name) for name in typed(arguments)]
    plugins.load()
    plugins.use(names, strict=True)
    _remember(names)
    return names


def resolve(infra: dict[str, Any]) -> None:
    """Replace the plug-ins of a configuration by their names from any folder, and load them.

    Those of the command line are loaded before Hydra composes. Others are named in a file of the
    configuration.

    Raises:
        UserError: one of them cannot be loaded.
    """
    infra["plugins"] = [plugins.absolute(name) for name in _names(infra.get("plugins"))]
    plugins.use(infra["plugins"], strict=True)


def load_recorded(configs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Load the plug-ins that the configurations of runs name, as far as this user has named them before.

    Returns:
        A line for each that is not loaded, with the way out.
    """
    recorded = {
        str(name): None
        for config in configs
        if isinstance(named := (config.get("infra") or {}).get("plugins"), list)
        for name in named
    }
    inherited = [
        name for variable in plugins.VARIABLES for name in plugins.split(os.environ.get(variable, ""))
    ]
    trusted = {*_remembered(), *inherited}
    plugins.use([name for name in recorded if name in trusted])
    return [
        f"plug-in {name} is not loaded: the runs name it, and you never did. If you trust it, add "
        f"{SETTING}=[{name}]"
        for name in recorded
        if name not in trusted
    ]


def _value(word: str) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(word).value()
    except HydraException as error:
        raise UserError(f"{word} cannot be read", f"write {SETTING}=[mine.py,package]") from error


def _names(value: Any) -> list[str]:
    if value is None:
        return []
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise UserError(
            f"{SETTING}={value!r} is not a list of modules and files", f"write {SETTING}=[mine.py,package]"
        )
    return list(names)


def _place() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "ablate" / "plugins.json"


def _remembered() -> list[str]:
    found = read_json(_place())
    return [str(name) for name in found] if isinstance(found, list) else []


def _remember(names: Sequence[str]) -> None:
    """Add to the file of this user; without a home that can be written, nothing is remembered."""
    known = _remembered()
    if set(names) <= set(known):
        return
    try:
        _place().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(_place(), [*known, *(name for name in names if name not in known)])
    except OSError:
        return
