"""Records of jobs that were submitted to a cluster: the runs, their packing, the job numbers.

<runs_dir>/studies/<study>/jobs/<id>.json   the record, written before the jobs are submitted
                                <id>/        what the jobs print, and their script to look at
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ablate.store.files import read_json, write_json
from ablate.store.manifest import study_dir


@dataclass(frozen=True)
class Array:
    """A job array: its number, and which packs its tasks 0, 1, … have."""

    job: str | None  # None until the cluster has answered
    first: int
    count: int


@dataclass
class Jobs:
    """One submission of a study's runs."""

    id: str
    study: str
    created: str
    packs: list[list[str]]  # signatures of the runs of each job, in their order
    arrays: list[Array]
    side_by_side: int  # runs of a pack at a time
    infra: dict[str, Any]  # as frozen
    code: dict[str, Any] = field(default_factory=dict)  # commit, dirty, digest of the changes, snapshot

    def path(self, runs_dir: Path) -> Path:
        """The record's file."""
        return folder(runs_dir, self.study) / f"{self.id}.json"

    def logs(self, runs_dir: Path) -> Path:
        """The folder of what the jobs print."""
        return folder(runs_dir, self.study) / self.id

    def save(self, runs_dir: Path) -> Path:
        """Write the record, whole or not at all."""
        path = self.path(runs_dir)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(self))
        return path

    def name(self, array: Array) -> str:
        """Name of an array on the cluster; it is found by this name if its number was not recorded."""
        return f"ablate-{self.id}.{array.first}"

    def job_of(self, pack: int) -> str | None:
        """The job that has a pack, as SLURM writes it: 123_4."""
        for array in self.arrays:
            if array.job is not None and array.first <= pack < array.first + array.count:
                return f"{array.job}_{pack - array.first}"
        return None


def folder(runs_dir: Path, study: str) -> Path:
    """Folder of the records of a study's jobs."""
    return study_dir(runs_dir, study) / "jobs"


def read(path: Path) -> Jobs | None:
    """A record, or None where there is no whole one."""
    found = read_json(path)
    try:
        read = Jobs(**{**found, "arrays": [Array(**array) for array in found["arrays"]]})
    except (KeyError, TypeError):
        return None
    packed = isinstance(read.packs, list) and all(isinstance(pack, list) for pack in read.packs)
    counted = all(type(array.first) is int and type(array.count) is int for array in read.arrays)
    named = all(isinstance(text, str) for text in (read.id, read.study, read.created))
    return read if packed and counted and named and isinstance(read.infra, dict) else None


def of_study(runs_dir: Path, study: str) -> list[Jobs]:
    """All whole records of a study, oldest first."""
    paths = sorted(folder(runs_dir, study).glob("*.json"))
    return [jobs for path in paths if (jobs := read(path)) is not None]


def damaged(runs_dir: Path, study: str) -> list[Path]:
    """Records of a study that cannot be read: which runs are in their jobs is not known."""
    return [path for path in sorted(folder(runs_dir, study).glob("*.json")) if read(path) is None]
