"""Records of a step: dictionaries with a name, often a shape, and figures or a verdict."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Record = dict[str, Any]
Key = tuple[str, str | None]  # name and shape, which identify a record within its step


def key(record: Record) -> Key:
    """Return the name and the shape."""
    return record["name"], record.get("shape")


def merged(*attempts: Iterable[Record]) -> list[Record]:
    """Return the records of several attempts in order: of two with one key, the later one at its place."""
    found: dict[Key, Record] = {}
    for attempt in attempts:
        for record in attempt:
            found[key(record)] = record
    return list(found.values())


def known(found: Iterable[Record]) -> frozenset[Key]:
    """Return the keys that need not be measured again."""
    return frozenset(key(record) for record in found if good(record))


def good(record: Record) -> bool:
    """Return True if something was measured, or a check passed; what was skipped or failed is tried again."""
    return bool(record.get("passed", True)) and "error" not in record
