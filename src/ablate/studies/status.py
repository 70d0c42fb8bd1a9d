"""Figures of a study that is running: states per study, accuracy and speed per run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.errors import UserError
from ablate.store import manifest
from ablate.store.folder import RunFolder
from ablate.store.metrics import Metric, of_columns
from ablate.studies import states


@dataclass(frozen=True)
class Progress:
    """Figures of a run so far.

    Attributes:
        best: best figure of `metric` on validation images; None before the first epoch.
        metric: what selects the checkpoint; None before the first epoch.
        speed: figures of the latest line of speed.jsonl.
    """

    best: float | None
    metric: Metric | None
    speed: Mapping[str, Any]


def progress(folder: RunFolder) -> Progress:
    """Read the figures of a run from its folder."""
    lines, best = folder.metrics(), None
    task = of_columns(lines[0]) if lines else None
    for line in lines:
        value = line.get(task.validation_column) if task else None
        if task and value is not None and (best is None or task.selecting.better(value, best)):
            best = value
    return Progress(best, task.selecting if task else None, next(reversed(folder.speed()), {}))


def studies(runs_dir: Path) -> Iterator[tuple[str, Counter[str] | UserError]]:
    """Yield the name of each study under a folder of runs with its runs by state, or why it is unreadable."""
    for name in manifest.names(runs_dir):
        try:
            planned = manifest.load(runs_dir, name)
        except UserError as error:
            yield name, error
            continue
        yield name, Counter(states.state_of(RunFolder(runs_dir / run.signature)) for run in planned.runs)
