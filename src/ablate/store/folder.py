"""A run's folder: which files it has, and reading them without torch.

<runs_dir>/<signature>/config.yaml       frozen at submission
                       status.json       state, times, host, process, attempt
                       metrics.jsonl     a line an epoch, flushed: the truth about training
                       speed.jsonl       likewise, the seconds of an epoch: no two attempts agree on them
                       result.json       final figures; its presence with state `finished` ends a run
                       error.txt         traceback of the last failure
                       environment.json  commit and diff, versions, hardware
                       checkpoint.pt     what resuming needs
<runs_dir>/studies/<name>/manifest.json  which runs a study consists of
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from ablate.errors import UserError
from ablate.store.files import Guard, read_json, read_json_lines

# libyaml's are some ten times as fast; PyYAML lacks them where it was built without
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

OUTPUT = "output.log"  # what a worker process prints
PENDING, RUNNING, FINISHED, FAILED, INTERRUPTED = "pending", "running", "finished", "failed", "interrupted"


@dataclass(frozen=True)
class RunFolder:
    """Paths and readers of one run's files.

    Attributes:
        path: the folder.
        guard: entered around every change of a file; raises `LostClaimError` once another process has
            claimed the run (`ablate.runs.claim.Claim.writing`).
    """

    path: Path
    guard: Guard = field(default=nullcontext, compare=False, repr=False)

    @property
    def signature(self) -> str:
        """12 hex digits: the folder's name."""
        return self.path.name

    @property
    def config_path(self) -> Path:
        """The frozen configuration."""
        return self.path / "config.yaml"

    @property
    def status_path(self) -> Path:
        """The state of the run."""
        return self.path / "status.json"

    @property
    def metrics_path(self) -> Path:
        """One JSON line an epoch."""
        return self.path / "metrics.jsonl"

    @property
    def speed_path(self) -> Path:
        """Seconds and images per second, one JSON line an epoch."""
        return self.path / "speed.jsonl"

    @property
    def result_path(self) -> Path:
        """The final figures."""
        return self.path / "result.json"

    @property
    def error_path(self) -> Path:
        """The traceback of the last failure."""
        return self.path / "error.txt"

    @property
    def environment_path(self) -> Path:
        """Commit, versions, hardware."""
        return self.path / "environment.json"

    @property
    def checkpoint_path(self) -> Path:
        """What resuming needs."""
        return self.path / "checkpoint.pt"

    def config(self, shared: bool = False) -> dict[str, Any]:
        """The frozen configuration as plain containers; empty if there is none.

        `shared` is faster over thousands of runs: it may be the same object for several, to be read only.
        """
        if not self.config_path.exists():
            return {}
        found = load(self.config_path.read_text(encoding="utf-8")) or {}
        return found if shared else copy.deepcopy(found)

    def status(self) -> dict[str, Any]:
        """The status record; a run that has none is pending."""
        record = read_json(self.status_path)
        return record if isinstance(record, dict) else {"state": PENDING, "attempt": 0}

    def state(self) -> str:
        """pending, running, finished, failed or interrupted."""
        return str(self.status().get("state", PENDING))

    def metrics(self) -> list[dict[str, Any]]:
        """The whole records of metrics.jsonl."""
        return read_json_lines(self.metrics_path)[0]

    def speed(self) -> list[dict[str, Any]]:
        """The whole records of speed.jsonl; an epoch that was trained again has several."""
        return read_json_lines(self.speed_path)[0]

    def result(self) -> dict[str, Any] | None:
        """The final figures, or None before the run has finished."""
        record = read_json(self.result_path)
        return record if isinstance(record, dict) else None

    def error(self) -> str:
        """The recorded traceback, or an empty string."""
        return self.error_path.read_text(encoding="utf-8") if self.error_path.exists() else ""

    def finished(self) -> bool:
        """True once the run has its final figures and says so."""
        return self.state() == FINISHED and self.result() is not None


def find(runs_dir: Path, beginning: str) -> RunFolder:
    """The one run whose signature begins so.

    Raises:
        UserError: no run does, or several do.
    """
    safe = beginning if beginning.isalnum() else ""
    found = sorted(path.parent for path in runs_dir.glob(f"{safe}*/config.yaml")) if safe else []
    if len(found) == 1:
        return RunFolder(found[0])
    if found:
        raise UserError(f"{len(found)} runs begin with {beginning}", "give more of the signature")
    raise UserError(
        f"no run {beginning!r} under {runs_dir}", "`ablate status STUDY` shows signatures in its column `run`"
    )


def dump(config: dict[str, Any]) -> str:
    """A configuration as it is frozen: YAML in the order of its keys."""
    return str(yaml.dump(config, Dumper=_DUMPER, sort_keys=False, allow_unicode=True))


def load(text: str) -> Any:
    """What `dump` wrote, by the safe loader.

    A group of settings is parsed once for all the runs that share it, word for word: its lines are the key
    of a cache. What is returned is shared, and to be read only.
    """
    blocks: list[list[str]] = []
    for line in text.splitlines(keepends=True):
        if line[:1] in (" ", "-", "\n", "#") and blocks:
            blocks[-1].append(line)
        else:
            blocks.append([line])
    try:
        parts = [_parsed("".join(block)) for block in blocks]
    except yaml.YAMLError:  # not in blocks of its own: as a whole, then, with the error of the whole
        parts = []
    if not parts or not all(isinstance(part, dict) for part in parts):
        return yaml.load(text, Loader=_LOADER)
    return {key: value for part in parts for key, value in part.items()}


@lru_cache(maxsize=4096)
def _parsed(block: str) -> Any:
    return yaml.load(block, Loader=_LOADER)
