"""A study's manifest: its question, baseline, factors, and the runs it consists of."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ablate.errors import UserError, nearest
from ablate.store.files import read_json, write_json

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study: its identity and where it stands in the design."""

    signature: str
    pair_key: str
    seed: int
    factors: dict[str, str]  # e.g. {"op": "lsa", "op.channel.heads": "C"}
    overrides: dict[str, str] = field(default_factory=dict)  # as they were typed, without infra and study


@dataclass
class Manifest:
    """What a study is, written beside its runs as studies/<name>/manifest.json."""

    name: str
    question: str = ""
    baseline: dict[str, str] = field(default_factory=dict)
    factors: list[str] = field(default_factory=list)
    paths: dict[str, list[str]] = field(default_factory=dict)  # walks through its conditions, by name
    metric: str = "test_top1"
    command: str = ""
    updated: str = ""
    runs: list[PlannedRun] = field(default_factory=list)

    def save(self, runs_dir: Path) -> Path:
        """Write the manifest, whole or not at all, and return its path."""
        path = study_dir(runs_dir, self.name) / MANIFEST
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(self))
        return path


def study_dir(runs_dir: Path, name: str) -> Path:
    """The folder of a study's manifest, table and report.

    Raises:
        UserError: `name` would leave the studies' folder.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_./-]*", name) or ".." in name:
        raise UserError(
            f"study name {name!r} is not usable as a folder name",
            "use letters, digits, '_', '-', '.' and '/' only, e.g. study.name=heads_and_ghost",
        )
    return runs_dir / "studies" / name


def load(runs_dir: Path, name: str) -> Manifest:
    """Read a study's manifest.

    Raises:
        UserError: no such study; names the nearest one and how to start it.
    """
    record: Any = read_json(study_dir(runs_dir, name) / MANIFEST)
    if not isinstance(record, dict):
        known = names(runs_dir)
        hint = nearest(name, known) or (
            f"known studies: {', '.join(known)}" if known else "no study was started yet"
        )
        raise UserError(
            f"no study {name!r} under {runs_dir}",
            f"{hint}; start one with `ablate train study={name}` or point --runs-dir at another folder",
        )
    record["runs"] = [PlannedRun(**run) for run in record["runs"]]
    return Manifest(**{field.name: record[field.name] for field in fields(Manifest) if field.name in record})


def find(runs_dir: Path, name: str) -> Manifest | None:
    """A study's manifest, or None if it has none yet."""
    return load(runs_dir, name) if (study_dir(runs_dir, name) / MANIFEST).exists() else None


def names(runs_dir: Path) -> list[str]:
    """The studies that have a manifest under `runs_dir`."""
    root = runs_dir / "studies"
    return sorted(path.parent.relative_to(root).as_posix() for path in root.rglob(MANIFEST))
