"""Differences of two runs: configuration, code, versions and hardware."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ablate.store import code
from ablate.store.folder import RunFolder, find

ABSENT = "–"
PLACES = ("infra", "study")  # parts of a configuration outside a run's identity
TEXTS = ("diff",)  # too long to show


class Change(NamedTuple):
    """A value that two runs do not share."""

    name: str
    one: str
    other: str


class Difference(NamedTuple):
    """Differences of two runs.

    Attributes:
        signatures: of the two.
        settings: of their configurations that decide figures.
        places: settings of `infra` and `study`, which do not.
        code: modules and data with other digests; None if a run has no record of its code.
        environment: versions, hardware, and settings that change rounding.
    """

    signatures: tuple[str, str]
    settings: list[Change]
    places: list[Change]
    code: list[Change] | None
    environment: list[Change]


def difference(runs_dir: Path, one: str, other: str) -> Difference:
    """Compare two runs.

    Args:
        runs_dir: folder of the runs.
        one: the beginning of a signature.
        other: the beginning of another one.

    Raises:
        UserError: no such run.
    """
    folders = [find(runs_dir, beginning) for beginning in (one, other)]
    configs = [folder.config() for folder in folders]
    records = [folder.environment() or {} for folder in folders]
    changes = _changes(*configs)
    return Difference(
        (folders[0].signature, folders[1].signature),
        [change for change in changes if change.name.partition(".")[0] not in PLACES],
        [change for change in changes if change.name.partition(".")[0] in PLACES],
        _code(folders, records),
        _changes(*({key: value for key, value in record.items() if key != "code"} for record in records)),
    )


def _code(folders: list[RunFolder], records: list[dict[str, Any]]) -> list[Change] | None:
    if not all(code.known(record) for record in records):
        return None
    texts = [record["code"].get("digests") or {} for record in records]
    return [
        Change(name, texts[0].get(name, ABSENT), texts[1].get(name, ABSENT))
        for name in sorted({*texts[0], *texts[1]})
        if name not in texts[0] or name not in texts[1] or not code.same(name, texts[0][name], texts[1][name])
    ]


def _changes(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[Change]:
    flat = [dict(_flat(tree)) for tree in (one, other)]
    names = sorted({*flat[0], *flat[1]})
    pairs = [Change(name, *(str(part.get(name, ABSENT)) for part in flat)) for name in names]
    return [change for change in pairs if change.one != change.other and change.name not in TEXTS]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found
