"""Which runs belong together: those that differ in their seed, and those of one study."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ablate.store.identity import OUTSIDE_IDENTITY, canonical, digest, signature

__all__ = ["fixed_digest", "pair_key", "signature"]


def pair_key(config: Mapping[str, Any]) -> str:
    """The signature without the seed: runs that differ in their seed only share it."""
    return digest({key: value for key, value in config.items() if key not in (*OUTSIDE_IDENTITY, "seed")})


def fixed_digest(config: Mapping[str, Any], factors: list[str], constant: Mapping[str, str]) -> str:
    """The same without seed and factors: what a study holds fixed.

    `constant` are the overrides common to its runs: one inside a factor (`op.channel.heads=2x` where
    the factor is `op`) would not be seen otherwise.
    """
    fixed = json.loads(canonical({k: v for k, v in config.items() if k not in (*OUTSIDE_IDENTITY, "seed")}))
    for factor in factors:
        *path, last = factor.replace("/", ".").split(".")
        node = fixed
        for part in path:
            node = node.get(part, {}) if isinstance(node, dict) else {}
        if isinstance(node, dict):
            node.pop(last, None)
    return digest({"fixed": fixed, "constant": dict(constant)})
