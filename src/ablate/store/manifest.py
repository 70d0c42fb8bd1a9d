"""A study's manifest: its question, baseline, factors, and the runs it consists of."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ablate.errors import UserError, nearest
from ablate.store.files import read_json, write_json
from ablate.store.folder import RunFolder
from ablate.store.identity import pair_key
from ablate.store.metrics import DEFAULT, of_task
from ablate.store.metrics import of_run as metrics_of

MANIFEST = "manifest.json"
FOLDERS = ("report", "jobs")  # what a study's folder holds beside the manifest
SUFFIXES = (".json", ".csv", ".journal")
LOCK = ".manifest.lock"  # held while runs are added or removed


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study: its identity and its place in the design."""

    signature: str
    pair_key: str
    seed: int
    factors: dict[str, str]  # e.g. {"op": "lsa", "op.channel.heads": "C"}
    overrides: dict[str, str] = field(default_factory=dict)  # as they were typed, without infra and study


@dataclass
class Manifest:
    """A study's manifest, written beside its runs as studies/<name>/manifest.json."""

    name: str
    question: str = ""
    baseline: dict[str, str] = field(default_factory=dict)
    factors: list[str] = field(default_factory=list)
    paths: dict[str, list[str]] = field(default_factory=dict)  # walks through its conditions, by name
    metric: str = of_task(DEFAULT).test_column
    margin: float | None = None  # of equivalence, in the unit of the metric
    margin_after: int = 0  # finished runs when the margin was set: 0 if it was fixed before the runs
    command: str = ""
    updated: str = ""
    runs: list[PlannedRun] = field(default_factory=list)
    plugins: list[str] = field(default_factory=list)  # that infra.plugins of its runs name
    impossible: dict[str, str] = field(
        default_factory=dict
    )  # combinations that were skipped, and the reasons

    def save(self, runs_dir: Path) -> Path:
        """Write the manifest, whole or not at all, and return its path."""
        path = study_dir(runs_dir, self.name) / MANIFEST
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(self))
        return path


class DamagedManifestError(UserError):
    """A study's manifest is not one: names the file, and says how it is written again."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is damaged: it is not the manifest of a study",
            "submit the study's commands again (`ablate train …`), which write it anew; its runs are "
            "untouched, and nothing that is finished is computed again",
        )


def study_dir(runs_dir: Path, name: str) -> Path:
    """The folder of a study's manifest, table and report.

    Raises:
        UserError: `name` would leave the studies' folder.
    """
    parts = name.split("/")
    if not all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", part) for part in parts) or len(name) > 200:
        shown = name if len(name) <= 60 else f"{name[:60]}…"
        raise UserError(
            f"study name {shown!r} is not usable as a folder name",
            "use letters, digits, '_', '-', '.' and '/' only, at most 100 of them in a part and 200 in all; "
            "a part begins with a letter or digit: study.name=heads_and_ghost",
        )
    reserved = [part for part in parts if part in FOLDERS or Path(part).suffix in SUFFIXES]
    if reserved:
        raise UserError(
            f"study name {name!r}: {reserved[0]!r} is a name of a study's own files",
            f"no part may be {', '.join(FOLDERS)} or end in {', '.join(SUFFIXES)}",
        )
    return runs_dir / "studies" / name


def load(runs_dir: Path, name: str) -> Manifest:
    """Read a study's manifest. A run that no study lists is a study of one run, named by its signature.

    Raises:
        UserError: no such study; names the nearest one and how to start it.
        DamagedManifestError: its file is not a manifest.
    """
    path = study_dir(runs_dir, name) / MANIFEST
    if not path.exists():
        if (single := _single(runs_dir, name)) is not None:
            return single
        known = names(runs_dir)
        hint = nearest(name, known) or (
            f"known studies: {', '.join(known)}" if known else "no study was started yet"
        )
        raise UserError(
            f"no study {name!r} under {runs_dir}",
            f"{hint}; start one with `ablate train … study.name={name}`, or if conf/study has it with "
            f"`ablate train study={name}`, or point --runs-dir at another folder",
        )
    found = _read(path)
    if found is None:
        raise DamagedManifestError(path)
    return found


def _single(runs_dir: Path, beginning: str) -> Manifest | None:
    """Return the one run whose signature begins so as a study of its own; None if no run or several do."""
    safe = re.fullmatch(r"[0-9a-f]{3,12}", beginning)
    found = list(runs_dir.glob(f"{beginning}*/config.yaml")) if safe else []
    return of_run(RunFolder(found[0].parent)) if len(found) == 1 else None


def of_run(folder: RunFolder) -> Manifest:
    """Return the manifest of a study of one run, which is named by the run's signature.

    Of a run with a damaged configuration the operator and seed are not known, and the seed reads 0.
    """
    try:
        config = folder.config(shared=True)
    except UserError:
        config = {}
    operator, seed = (config.get("op") or {}).get("name", "?"), config.get("seed", 0)
    key = pair_key(config) if config else ""
    run = PlannedRun(folder.signature, key, seed, {"op": str(operator)})
    return Manifest(folder.signature, factors=["op"], metric=metrics_of(config).test_column, runs=[run])


def singles(runs_dir: Path) -> list[Manifest]:
    """Runs that no study lists, each as a study of one run.

    Raises:
        DamagedManifestError: the manifest of a study cannot be read, so that its runs are not known.
    """
    listed = {run.signature for name in names(runs_dir) for run in load(runs_dir, name).runs}
    paths = sorted(path.parent for path in runs_dir.glob("*/config.yaml"))
    return [of_run(RunFolder(path)) for path in paths if path.name not in listed]


def find(runs_dir: Path, name: str) -> Manifest | None:
    """A study's manifest, or None if it has none yet, or a damaged one."""
    path = study_dir(runs_dir, name) / MANIFEST
    return _read(path) if path.exists() else None


def set_aside_damaged(runs_dir: Path, name: str) -> Path | None:
    """Rename a damaged manifest to manifest.json.damaged and return its new path; None if there is none."""
    path = study_dir(runs_dir, name) / MANIFEST
    if not path.exists() or _read(path) is not None:
        return None
    return path.replace(path.with_name(f"{MANIFEST}.damaged"))


def _read(path: Path) -> Manifest | None:
    """The manifest in a file, or None if it is not one."""
    record: Any = read_json(path)
    try:
        known = {field.name: record[field.name] for field in fields(Manifest) if field.name in record}
        found = Manifest(**{**known, "runs": [PlannedRun(**run) for run in record["runs"]]})
    except (KeyError, TypeError):
        return None
    texts = (found.name, found.question, found.metric, found.command, found.updated)
    whole = (
        all(isinstance(text, str) for text in texts)
        and all(isinstance(group, dict) for group in (found.baseline, found.paths))
        and all(isinstance(names, list) for names in (found.factors, found.plugins))
        and all(isinstance(name, str) for name in found.plugins)
        and isinstance(found.impossible, dict)
        and all(isinstance(reason, str) for reason in found.impossible.values())
        and (found.margin is None or is_margin(found.margin))
        and type(found.margin_after) is int
        and all(_whole(run) for run in found.runs)
    )
    return found if whole else None


def is_margin(value: object) -> bool:
    """Return True if a value can be a margin of equivalence: a positive finite number."""
    return isinstance(value, int | float) and value is not True and 0 < value < math.inf


def _whole(run: PlannedRun) -> bool:
    named = re.fullmatch(r"[0-9a-f]{12}", run.signature) if isinstance(run.signature, str) else None
    return (
        named is not None
        and type(run.seed) is int
        and isinstance(run.factors, dict)
        and isinstance(run.overrides, dict)
    )


def names(runs_dir: Path) -> list[str]:
    """The studies that have a manifest under `runs_dir`."""
    root = runs_dir / "studies"
    return sorted(path.parent.relative_to(root).as_posix() for path in root.rglob(MANIFEST))
