"""Figures of a study that is running: states per study, accuracy and speed per run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
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


def described(runs_dir: Path, overview: states.Overview) -> dict[str, Any]:
    """Return a study and its runs as values that JSON can hold.

    Times are in UTC, in ISO 8601; `left_seconds` is the expected time until a running run has trained.
    """
    planned = overview.manifest
    return {
        "study": planned.name,
        "question": planned.question,
        "metric": planned.metric,
        "states": dict(overview.counts),
        "cluster_silent": overview.queue.silent,
        "runs": [_described(RunFolder(runs_dir / one.run.signature), one) for one in overview.runs],
    }


def _described(folder: RunFolder, standing: states.Standing) -> dict[str, Any]:
    done, record = progress(folder), standing.record
    left = None if standing.ends is None else (standing.ends - datetime.now(UTC)).total_seconds()
    return {
        "run": standing.run.signature,
        "factors": standing.run.factors,
        "seed": standing.run.seed,
        "state": standing.state,
        **{key: record.get(key) for key in ("epoch", "epochs", "attempt", "started", "finished")},
        "left_seconds": None if left is None else max(0.0, round(left, 1)),
        "selecting": done.metric.name if done.metric else None,
        "best": done.best,
        "speed": {key: value for key, value in done.speed.items() if key != "epoch"},
        "job": standing.job,
        "stale": list(standing.stale),
        "note": standing.note,
        "folder": str(folder.path.absolute()),
    }


def studies(runs_dir: Path) -> Iterator[tuple[str, Counter[str] | UserError]]:
    """Yield the name of each study under a folder of runs with its runs by state, or why it is unreadable."""
    for name in manifest.names(runs_dir):
        try:
            planned = manifest.load(runs_dir, name)
        except UserError as error:
            yield name, error
            continue
        yield name, Counter(states.state_of(RunFolder(runs_dir / run.signature)) for run in planned.runs)


def singles(runs_dir: Path) -> list[states.Standing]:
    """Return the runs that no study lists, as a study of one run each has them.

    Raises:
        UserError: the manifest of a study is damaged, so that its runs are not known.
    """
    return [states.of_study(runs_dir, planned.name).runs[0] for planned in manifest.singles(runs_dir)]
