"""Identity of a run: its signature, and the pair key that it shares with runs of other seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablate.store.identity import OUTSIDE_IDENTITY, digest, signature

__all__ = ["OUTSIDE_IDENTITY", "pair_key", "signature"]


def pair_key(config: Mapping[str, Any]) -> str:
    """The signature without the seed: runs that differ in their seed only share it."""
    return digest({key: value for key, value in config.items() if key not in (*OUTSIDE_IDENTITY, "seed")})
