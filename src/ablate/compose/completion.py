"""Completion of an override of `ablate train`: groups, their choices, settings and levels.

It reads the files of `conf` only, so that a shell has its answer in a fraction of a second. An operator,
host or data set that a plug-in registers without such a file is not offered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ablate.configuration import conf_dir

MAIN = "train"
LAUNCHERS = ("inline", "local", "slurm")
OPTIONS = ("-m", "--cfg=job", "--info=defaults", "--dry-run", "--help")


def overrides(words: Sequence[str], current: str) -> list[str]:
    """Return what the word `current` may become, as whole words.

    Args:
        words: the words before it, of which choices of groups are taken into account.
        current: the beginning of a word, as typed. Of a list (`op=lsa,el`) the last level is completed.
    """
    if current.startswith("-"):
        return [option for option in OPTIONS if option.startswith(current)]
    chosen = dict(word.split("=", 1) for word in words if "=" in word)
    key, separator, value = current.partition("=")
    groups = _groups()
    settings = dict(_settings(groups, chosen))
    if not separator:
        known = [*groups, *settings]
        return sorted(f"{name}=" for name in known if name.startswith(current))
    before, comma, last = value.rpartition(",")
    levels = groups.get(key) or (["true", "false"] if isinstance(settings.get(key), bool) else [])
    used = set(before.split(","))
    return [
        f"{key}={before}{comma}{level}" for level in levels if level.startswith(last) and level not in used
    ]


def operators() -> list[str]:
    """Return the names of the operators that have a file in `conf/op`."""
    return _groups()["op"]


def settings_of_infra() -> list[str]:
    """Return the settings of `infra`, dotted."""
    return [name for name, _ in _settings(_groups(), {}) if name.startswith("infra.")]


def _groups() -> dict[str, list[str]]:
    """Choices by group. A folder within `op` is a group; within another group it is a part of its choices."""
    found: dict[str, list[str]] = {"hydra/launcher": list(LAUNCHERS)}
    for path in sorted(conf_dir().glob("*/**/*.yaml")):
        top, *rest = path.relative_to(conf_dir()).with_suffix("").parts
        split = 1 if top == "op" else 0
        group = "/".join([top, *(rest[:-1] if split else [])])
        found.setdefault(group, []).append(rest[-1] if split else "/".join(rest))
    return found


def _settings(groups: Mapping[str, list[str]], chosen: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """Yield every setting of the composed groups with its default."""
    main = _read(conf_dir() / f"{MAIN}.yaml")
    defaults = {
        str(group): str(choice)
        for entry in main.get("defaults", ())
        if isinstance(entry, dict)
        for group, choice in entry.items()
        if choice is not None and " " not in str(group)
    }
    yield from _leaves("", {key: value for key, value in main.items() if key not in ("defaults", "hydra")})
    for group, choice in {
        **defaults,
        **{key: value for key, value in chosen.items() if key in groups},
    }.items():
        if "/" not in group and group not in ("study", "variant"):
            yield from _of_choice(group, choice.rpartition(",")[2], chosen)


def _of_choice(group: str, choice: str, chosen: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """Yield the settings of a group's file, those of the groups within it included."""
    content = _read(conf_dir() / group / f"{choice}.yaml")
    for entry in content.pop("defaults", ()):
        for inner, default in entry.items() if isinstance(entry, dict) else [(None, entry)]:
            if inner is None:
                if default != "_self_":
                    yield from _of_choice(group, str(default), chosen)
            elif not str(inner).startswith(("/", "override")):
                path = f"{group}/{inner}"
                yield from _of_choice(path, chosen.get(path, str(default)).rpartition(",")[2], chosen)
    yield from _leaves(group.replace("/", "."), content)


def _leaves(path: str, node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        name = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping) and value:
            yield from _leaves(name, value)
        else:
            yield name, value


def _read(path: Path) -> dict[str, Any]:
    """Return the content of a file of `conf`; empty where there is none, as for half a name."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        return {}
    return content if isinstance(content, dict) else {}
