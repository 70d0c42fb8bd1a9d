"""Damaged files of a run: half, empty, garbled, or valid but of another shape.

`CHECKS` has every file that a run writes for itself. No check reads weights: `ablate verify` does.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.errors import UserError
from ablate.store import digests, shapes
from ablate.store.files import read_json, read_json_lines
from ablate.store.shapes import FINISHED

if TYPE_CHECKING:
    from ablate.store.folder import RunFolder


@dataclass(frozen=True)
class Damage:
    """A file that cannot be believed, and why."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path.name} is damaged: {self.reason}"


class DamagedError(UserError):
    """Files are damaged: names them, and says how a run is computed again."""

    def __init__(self, damages: Sequence[Damage]) -> None:
        named = "; ".join(f"{damage.path} is damaged ({damage.reason})" for damage in damages)
        super().__init__(
            named, "`ablate retry STUDY` computes what is damaged again, from its last whole checkpoint"
        )
        self.damages = list(damages)


def find(folder: RunFolder) -> list[Damage]:
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


def find_changed(folder: RunFolder) -> list[Damage]:
    """Likewise, with every byte of a finished run's files compared with its digest."""
    found = {damage.path.name: damage for damage in find(folder)}
    if folder.state() == FINISHED:
        for name, reason in digests.changed(folder.path, digests.read(folder.path)[0] or {}).items():
            found.setdefault(name, Damage(folder.path / name, reason))
    return list(found.values())


def _config(folder: RunFolder, status: Status) -> str | None:
    """Nothing is wrong with a missing one here: it was not frozen, or the digests have it."""
    return folder.read_config()[1]


def _status(folder: RunFolder, status: Status) -> str | None:
    if not folder.status_path.exists():
        return "it is missing" if folder.metrics_path.exists() else None
    return _json_file(folder.status_path, shapes.status)


def _metrics(folder: RunFolder, status: Status) -> str | None:
    records, reason = _lines(folder.metrics_path, shapes.metrics_line, status)
    done = status.get("epochs" if status["state"] == FINISHED else "epoch") or 0
    epochs = [line["epoch"] for line in records]
    if reason is None and epochs[:done] != list(range(1, done + 1)):  # written before the status is
        return f"it has {len(epochs)} of {done} epochs"
    return reason


def _result(folder: RunFolder, status: Status) -> str | None:
    if status["state"] == FINISHED and not folder.result_path.exists():
        return "it is missing"
    return _json_file(folder.result_path, shapes.result)


def _environment(folder: RunFolder, status: Status) -> str | None:
    """Parsed once for all runs of one environment: most of it is the uncommitted changes."""
    if folder.environment() is not None:
        return None
    return _json_file(folder.environment_path, shapes.environment)


def _checkpoint(folder: RunFolder, status: Status) -> str | None:
    """By the end of the archive, which half a file does not have."""
    path = folder.checkpoint_path
    return "it is not a checkpoint" if path.exists() and not zipfile.is_zipfile(path) else None


def _json_file(path: Path, wrong: Callable[[Any], str | None]) -> str | None:
    """What is wrong with a JSON file; nothing with one that is missing."""
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
CHECKS: Mapping[str, Callable[[RunFolder, Status], str | None]] = {
    "config.yaml": _config,
    "status.json": _status,
    "metrics.jsonl": _metrics,
    "speed.jsonl": lambda folder, status: _lines(folder.speed_path, shapes.line, status)[1],
    "result.json": _result,
    "environment.json": _environment,
    "checkpoint.pt": _checkpoint,
    "claim.json": lambda folder, status: _json_file(folder.claim_path, shapes.claim),
}


def _known(found: Mapping[str, str | None]) -> dict[str, str | None]:
    return {name: reason for name, reason in found.items() if reason is not None}
