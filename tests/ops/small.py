"""Settings with which every entry fits a small map of few channels."""

from __future__ import annotations

from typing import Any

from ablate import ops

EXCEPTIONS: dict[str, dict[str, Any]] = {
    "lsa": {"region": {"size": 3}},
    "lesa_window": {"window": 3},
    "involution": {"channel": {"heads": "C/4"}, "region": {"kernel": 3}},
    "i_d_dwconv": {"channel": {"heads": "C/4"}, "region": {"kernel": 3}},
}


def small(name: str) -> dict[str, Any]:
    """Overrides for `ops.create` on maps from 3×3 on, 4 · n channels and 2 heads."""
    if name in EXCEPTIONS:
        return EXCEPTIONS[name]
    defaults = ops.spec(name).defaults
    if "region" in defaults:
        return {"region": {"kernel": 3}}
    return {"kernel": 3} if "kernel" in defaults else {}
