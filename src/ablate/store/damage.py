"""Damaged files of a run: half, empty, garbled, or valid but of another shape.

`CHECKS` has every file that a run writes for itself. No check reads weights: `ablate verify` does.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ablate.store import digests, shapes
from ablate.store.files import read_json, read_json_lines
from ablate.store.run_files import Damage, DamagedError, RunFiles
from ablate.store.shapes import FINISHED

__all__ = ["CHECKS", "Damage", "DamagedError", "find", "find_changed"]


def find(folder: RunFiles) -> list[Damage]:
    """The damaged files of a run that no process is at work on."""
    if not folder.path.is_dir():
        return []
    status = folder.status()
    found: dict[str, str | None] = {}
    for name, check in CHECKS.items():
        try:
            found[name] = check(folder, status)
        except OSError as error:
            found[name] = f"it cannot be read: {error.strerror or error}"
    if status["state"] == FINISHED:
        recorded, found[digests.DIGESTS] = digests.read(folder.path)
        found = {**digests.sizes(folder.path, recorded or {}), **_known(found)}
    return [Damage(folder.path / name, reason) for name, reason in found.items() if reason is not None]


def find_changed(folder: RunFiles) -> list[Damage]:
    """Return the damaged files, with every byte of a finished run's files compared with its digest."""
    found = {damage.path.name: damage for damage in find(folder)}
    if folder.state() == FINISHED:
        for name, reason in digests.changed(folder.path, digests.read(folder.path)[0] or {}).items():
            found.setdefault(name, Damage(folder.path / name, reason))
    return list(found.values())


def _config(folder: RunFiles, status: Status) -> str | None:
    """Check the configuration; a missing one is not damage: it was not frozen, or the digests have it."""
    return folder.read_config()[1]


def _status(folder: RunFiles, status: Status) -> str | None:
    if not folder.status_path.exists():
        return "it is missing" if folder.metrics_path.exists() else None
    return _json_file(folder.status_path, shapes.status)


def _metrics(folder: RunFiles, status: Status) -> str | None:
    records, reason = _lines(folder.metrics_path, shapes.metrics_line, status)
    done = status.get("epochs" if status["state"] == FINISHED else "epoch") or 0
    epochs = [line["epoch"] for line in records]
    if reason is None and epochs[:done] != list(range(1, done + 1)):  # written before the status is
        return f"it has {len(epochs)} of {done} epochs"
    return reason


def _result(folder: RunFiles, status: Status) -> str | None:
    if status["state"] == FINISHED and not folder.result_path.exists():
        return "it is missing"
    return _json_file(folder.result_path, shapes.result)


def _environment(folder: RunFiles, status: Status) -> str | None:
    """Parsed once for all runs of one environment: most of it is the uncommitted changes."""
    if folder.environment() is not None:
        return None
    return _json_file(folder.environment_path, shapes.environment)


def _archive(path: Path, kind: str) -> str | None:
    """Check the end of an archive, which a truncated file does not have."""
    return f"it is not {kind}" if path.exists() and not zipfile.is_zipfile(path) else None


def _json_file(path: Path, wrong: Callable[[Any], str | None]) -> str | None:
    """Return what is wrong with a JSON file; None if it is missing."""
    if not path.exists():
        return None
    record = read_json(path)
    return "it is not JSON" if record is None else wrong(record)


def _lines(
    path: Path, wrong: Callable[[Any], str | None], status: Status
) -> tuple[list[dict[str, Any]], str | None]:
    """The whole lines; half a line at the end of an unfinished run's is what a killed process leaves."""
    records, broken = read_json_lines(path, wrong)
    tail = path.read_bytes().rpartition(b"\n")[2] if broken == 1 else b""
    if broken and (status["state"] == FINISHED or not tail.startswith(b"{")):
        return records, f"it is broken after line {len(records)}"
    return records, None


Status = dict[str, Any]  # status.json, read once for all checks
# What is wrong with each file of a run, by name, as far as that is quickly seen.
CHECKS: Mapping[str, Callable[[RunFiles, Status], str | None]] = {
    "config.yaml": _config,
    "status.json": _status,
    "metrics.jsonl": _metrics,
    "speed.jsonl": lambda folder, status: _lines(folder.speed_path, shapes.line, status)[1],
    "result.json": _result,
    "classes.json": lambda folder, status: _json_file(folder.classes_path, shapes.classes),
    "environment.json": _environment,
    "examples.npz": lambda folder, status: _archive(folder.examples_path, "an archive of arrays"),
    "predictions.npz": lambda folder, status: _archive(folder.predictions_path, "an archive of arrays"),
    "checkpoint.pt": lambda folder, status: _archive(folder.checkpoint_path, "a checkpoint"),
    "claim.json": lambda folder, status: _json_file(folder.claim_path, shapes.claim),
}


def _known(found: Mapping[str, str | None]) -> dict[str, str | None]:
    return {name: reason for name, reason in found.items() if reason is not None}
