"""Structure of a configuration, checked before any part of it is read: its groups, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ablate.errors import UserError, unknown

GROUPS = ("op", "host", "data", "task", "recipe", "infra", "study")


def check(config: Mapping[str, Any]) -> None:
    """Refuse missing or unknown groups and settings at the top, and numbers that are not finite.

    Raises:
        UserError: names the setting, and the nearest one that exists.
    """
    for key in config:
        if key not in (*GROUPS, "seed"):
            within = [f"{group}.{name}" for group in GROUPS for name in _names(config.get(group))]
            error = unknown("setting", str(key), [*GROUPS, "seed", *_ending_like(str(key), within)])
            raise UserError(error.problem, f"{error.way_out}; a run consists of {', '.join(GROUPS)} and seed")
    for group in GROUPS:
        if not isinstance(config.get(group), Mapping):
            raise UserError(
                f"a run has no {group}: {group}={config.get(group)!r}",
                f"leave `{group}` as it is, or choose one; `ablate train --help` lists them",
            )
    if "seed" not in config:
        raise UserError("a run has no seed", "leave `seed` as it is, or give a whole number: seed=0")
    for path, value in _leaves(config):
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{path}={value} is not a finite number", "nan and inf have no identity")


def _names(group: Any) -> list[str]:
    return [str(name) for name in group] if isinstance(group, Mapping) else []


def _ending_like(key: str, paths: list[str]) -> list[str]:
    """Find settings of a group whose last part is nearly `key`: recipe.batch_size for `bacth_size`."""
    import difflib

    ends = {path.rpartition(".")[2]: path for path in paths}
    return [ends[end] for end in difflib.get_close_matches(key, list(ends), n=1, cutoff=0.7)]


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, (list, tuple)):
        for number, value in enumerate(node):
            yield from _leaves(value, f"{path}[{number}]")
    else:
        yield path, node
