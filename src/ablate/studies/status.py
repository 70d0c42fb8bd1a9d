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
from ablate.studies import states


@dataclass(frozen=True)
class Progress:
    """Figures of a run so far.

    Attributes:
        best: best validation accuracy in percent; None before the first epoch.
        speed: figures of the latest line of speed.jsonl.
    """

    best: float | None
    speed: Mapping[str, Any]


def progress(folder: RunFolder) -> Progress:
    """Read the figures of a run from its folder."""
    accuracies = [line["validation_top1"] for line in folder.metrics() if "validation_top1" in line]
    return Progress(max(accuracies, default=None), next(reversed(folder.speed()), {}))


def studies(runs_dir: Path) -> Iterator[tuple[str, Counter[str] | UserError]]:
    """Yield the name of each study under a folder of runs with its runs by state, or why it is unreadable."""
    for name in manifest.names(runs_dir):
        try:
            planned = manifest.load(runs_dir, name)
        except UserError as error:
            yield name, error
            continue
        yield name, Counter(states.state_of(RunFolder(runs_dir / run.signature)) for run in planned.runs)
