"""Digests of a finished run's files, written with its result: they find a byte that has changed since.

digests.json: {"files": {"result.json": {"bytes": 512, "sha256": "…"}, …}, "sha256": "…"}

The last digest is that of the list itself. Runs that finished under a version without digests have none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablate.store.files import Guard, read_json, write_json

DIGESTS = "digests.json"
FILES = (
    "config.yaml",
    "status.json",
    "metrics.jsonl",
    "speed.jsonl",
    "callbacks.jsonl",
    "result.json",
    "classes.json",
    "examples.npz",
    "predictions.npz",
    "environment.json",
    "checkpoint.pt",
)
REMOVABLE = ("checkpoint.pt",)  # by `ablate clean --checkpoints`

Digests = dict[str, dict[str, Any]]


def write(folder: Path, upcoming: Mapping[str, str], guard: Guard) -> None:
    """Write the digests of the files that there are; `upcoming` has the text of those that follow."""
    found: Digests = {}
    for name in FILES:
        if name in upcoming:
            data = upcoming[name].encode()
            found[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        elif (folder / name).exists():
            found[name] = {"bytes": (folder / name).stat().st_size, "sha256": _digest(folder / name)}
    write_json(folder / DIGESTS, {"files": found, "sha256": _own(found)}, guard)


def read(folder: Path) -> tuple[Digests | None, str | None]:
    """Return the digests, None if there are none, and what is wrong with their file."""
    path = folder / DIGESTS
    if not path.exists():
        return None, None
    record = read_json(path)
    files = record.get("files") if isinstance(record, dict) else None
    if not isinstance(files, dict) or not all(_entry(entry) for entry in files.values()):
        return None, "not a list of digests"
    if record.get("sha256") != _own(files):
        return None, "its own digest does not fit"
    return files, None


def sizes(folder: Path, recorded: Digests) -> dict[str, str]:
    """Return by name the files whose size is wrong; no file is read."""
    wrong: dict[str, str] = {}
    for name, entry in recorded.items():
        try:
            size = (folder / name).stat().st_size
        except FileNotFoundError:
            if name not in REMOVABLE:
                wrong[name] = "it is missing"
            continue
        if size != entry["bytes"]:
            wrong[name] = f"it has {size} bytes instead of {entry['bytes']}"
    return wrong


def changed(folder: Path, recorded: Digests) -> dict[str, str]:
    """Return by name the files whose content is wrong; every file is read whole."""
    wrong = sizes(folder, recorded)
    for name, entry in recorded.items():
        if name not in wrong and (folder / name).exists() and _digest(folder / name) != entry["sha256"]:
            wrong[name] = "its bytes have changed since the run finished"
    return wrong


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _own(files: Digests) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _entry(entry: object) -> bool:
    return (
        isinstance(entry, dict) and type(entry.get("bytes")) is int and isinstance(entry.get("sha256"), str)
    )
