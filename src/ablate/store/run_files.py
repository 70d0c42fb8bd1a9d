"""A run's folder: which files it has, and reading them without torch.

<runs_dir>/<signature>/config.yaml       frozen at submission
                       status.json       state, times, host, process, attempt
                       metrics.jsonl     one line per epoch, flushed: the authoritative record
                       speed.jsonl       one line per epoch, its seconds: they differ between attempts
                       callbacks.jsonl   one line per epoch, figures of callbacks, where there are some
                       result.json       final figures; its presence with state `finished` ends a run
                       classes.json      test figures by class, where the task has some
                       examples.npz      test images with predictions, where the task has pictures of them
                       predictions.npz   class predicted for each test image, where the task gives one class
                       error.txt         traceback of the last failure
                       environment.json  commit and diff, versions, hardware
                       checkpoint.pt     what resuming needs
                       digests.json      digests of these files, written when the run finishes
                       prune.json        a search asks the run to end early, and says why
<runs_dir>/studies/<name>/manifest.json  which runs a study consists of
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from ablate.errors import UserError
from ablate.store import digests, shapes
from ablate.store.files import Guard, read_json, read_json_lines
from ablate.store.identity import signature
from ablate.store.shapes import PENDING

# libyaml's are some ten times as fast; PyYAML lacks them where it was built without
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

OUTPUT = "output.log"  # what a worker process prints
CLAIM = "claim.json"


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


@dataclass(frozen=True)
class RunFiles:
    """Paths and readers of one run's files.

    Attributes:
        path: the folder.
        guard: entered around every change of a file; raises `LostClaimError` once another process has
            claimed the run (`ablate.execution.claim.Claim.writing`).
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
    def callbacks_path(self) -> Path:
        """Figures of callbacks, one JSON line per epoch."""
        return self.path / "callbacks.jsonl"

    @property
    def result_path(self) -> Path:
        """The final figures."""
        return self.path / "result.json"

    @property
    def classes_path(self) -> Path:
        """Test figures by class."""
        return self.path / "classes.json"

    @property
    def examples_path(self) -> Path:
        """Some test images with labels and predictions."""
        return self.path / "examples.npz"

    @property
    def predictions_path(self) -> Path:
        """Class predicted for each test image."""
        return self.path / "predictions.npz"

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
        """Everything that is needed to resume the run."""
        return self.path / "checkpoint.pt"

    @property
    def digests_path(self) -> Path:
        """Digests of the files of a finished run."""
        return self.path / digests.DIGESTS

    @property
    def prune_path(self) -> Path:
        """Request of a search to end the run early."""
        return self.path / "prune.json"

    @property
    def claim_path(self) -> Path:
        """The claim: which process computes the run."""
        return self.path / CLAIM

    def config(self, shared: bool = False) -> dict[str, Any]:
        """Return the frozen configuration as plain containers; empty if there is none.

        `shared` is faster over thousands of runs: it may be the same object for several, to be read only.

        Raises:
            DamagedError: the file cannot be read, or is the configuration of another run.
        """
        found, reason = self.read_config()
        if reason is not None:
            raise DamagedError([Damage(self.config_path, reason)])
        return found if shared else copy.deepcopy(found)

    def status(self) -> dict[str, Any]:
        """Return the status record; a run that has none, or a damaged one, is pending."""
        record = read_json(self.status_path)
        return record if shapes.status(record) is None else {"state": PENDING, "attempt": 0}

    def status_is_new(self) -> bool:
        """True if there is no status record, or a damaged one."""
        return shapes.status(read_json(self.status_path)) is not None

    def state(self) -> str:
        """pending, running, finished, failed, interrupted or pruned."""
        return str(self.status()["state"])

    def metrics(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl up to the first damaged one."""
        return read_json_lines(self.metrics_path, shapes.metrics_line)[0]

    def callbacks(self) -> list[dict[str, Any]]:
        """The records of callbacks.jsonl; an epoch that was trained again has several."""
        return read_json_lines(self.callbacks_path, shapes.line)[0]

    def speed(self) -> list[dict[str, Any]]:
        """The records of speed.jsonl; an epoch that was trained again has several."""
        return read_json_lines(self.speed_path, shapes.line)[0]

    def environment(self) -> dict[str, Any] | None:
        """environment.json, parsed once for all the runs of one: most of it is the uncommitted changes."""
        try:
            record = _json(self.environment_path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        return record if shapes.environment(record) is None else None

    def result(self) -> dict[str, Any] | None:
        """The final figures, or None before the run has finished."""
        record = read_json(self.result_path)
        return record if shapes.result(record) is None else None

    def classes(self) -> dict[str, dict[str, float]]:
        """Return the test figures of each class by metric; none without a file, or with a damaged one."""
        record = read_json(self.classes_path)
        return record if shapes.classes(record) is None else {}

    def error(self) -> str:
        """The recorded traceback, or an empty string."""
        try:
            return self.error_path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def read_config(self) -> tuple[dict[str, Any], str | None]:
        """Return the configuration, and what is wrong with it; shared, see `config`."""
        if not self.config_path.exists():
            return {}, None
        try:
            found = load(self.config_path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            return {}, "it is not UTF-8 text"
        except (yaml.YAMLError, ValueError, RecursionError):
            return {}, "it is not YAML"
        if (reason := shapes.config(found)) is not None:
            return {}, reason
        try:
            other = signature(found)
        except (UserError, TypeError):
            other = "no run"
        return (found, None) if other == self.signature else ({}, f"it is the configuration of {other}")


@lru_cache(maxsize=64)
def _json(text: str) -> Any:
    return json.loads(text)


def dump(config: dict[str, Any]) -> str:
    """A configuration as it is frozen: YAML in the order of its keys."""
    return str(yaml.dump(config, Dumper=_DUMPER, sort_keys=False, allow_unicode=True))


def load(text: str) -> Any:
    """Load what `dump` wrote, by the safe loader.

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
