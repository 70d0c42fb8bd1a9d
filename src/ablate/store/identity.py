"""The signature of a run: a digest of everything that can change its result, and the name of its folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ablate.errors import UserError

OUTSIDE_IDENTITY = ("infra", "study")  # where and how a run is executed, and which study it belongs to
IMPLIED = {"task": {"name": "classification"}}  # left out where a run has just this: runs before it had none
# the same for single settings of a group: the values of each that say what a run without it does
IMPLIED_SETTINGS: dict[str, dict[str, list[Any]]] = {
    "data": {"verify": ["fast", "full", "off"], "corrupt": ["refuse"]},  # how files are looked at beforehand
    "host": {"shift_order": ["roll_then_pad"], "deformable": [None, []], "pretrained": [None, False]},
    "task": {"map_norms": [True]},
    "recipe": {
        "frozen_stages": [0],
        "frozen_norms": [False],
        "freeze": [None, []],
        "layer_decay": [None, 1],
        "no_decay": [None, []],
    },
}
# name and digest of the weights that a run begins with; the digest follows from the name and the seed
WEIGHTS = {"host": ("pretrained", "pretrained_digest"), "task": ("init", "weights")}


def signature(config: Mapping[str, Any]) -> str:
    """12 hex digits of the whole resolved configuration without `infra` and `study`."""
    return digest(settings(config))


def pair_key(config: Mapping[str, Any]) -> str:
    """The signature without the seed: runs that differ in their seed only share it.

    The digest of the weights that a run begins with follows from the setting that names them and the seed.
    """
    same = {key: value for key, value in settings(config).items() if key != "seed"}
    return digest(without_weights(same))


def without_weights(config: Mapping[str, Any], *, names: bool = False) -> dict[str, Any]:
    """Return a configuration without the digests of the weights that its run begins with.

    Args:
        config: whole, or some of its groups.
        names: also without the settings that name them.
    """
    found = dict(config)
    for group, (name, weights) in WEIGHTS.items():
        if isinstance(found.get(group), Mapping):
            dropped = (name, weights) if names else (weights,)
            found[group] = {key: value for key, value in found[group].items() if key not in dropped}
    return found


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that its result depends on; what is implied is left out."""
    return {
        key: _without_implied(value, IMPLIED_SETTINGS.get(key, {}))
        for key, value in config.items()
        if key not in OUTSIDE_IDENTITY and not (key in IMPLIED and value == IMPLIED[key])
    }


def _without_implied(group: Any, implied: Mapping[str, list[Any]]) -> Any:
    if not implied or not isinstance(group, Mapping):
        return group
    return {name: value for name, value in group.items() if value not in implied.get(name, ())}


def digest(config: Mapping[str, Any]) -> str:
    """12 hex digits of nested containers, whatever the order of their keys."""
    return hashlib.sha256(canonical(config).encode()).hexdigest()[:12]


def canonical(config: Any) -> str:
    """Sorted JSON in which 1.0 and 1 are the same number, as they are for every computation."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        if isinstance(value, float) and value.is_integer():
            return int(value)
        return value

    try:
        return json.dumps(plain(config), sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise UserError(
            f"a setting is not a finite number: {error}", "nan and inf have no identity"
        ) from error
