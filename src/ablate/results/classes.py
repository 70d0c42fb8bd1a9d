"""Figures of single classes: which of them a condition gains or loses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate.results import statistics
from ablate.results.comparisons import Findings
from ablate.results.predictions import Kept
from ablate.results.statistics import Interval
from ablate.store.folder import FINISHED, RunFolder
from ablate.store.metrics import find

VALUE = "value"
TOP1 = "top1"

Values = NDArray[np.float64]
COLUMNS = ("condition", "seed", "signature", "state", "metric", "class", VALUE)


class Difference(NamedTuple):
    """A condition against the baseline in one class, over the seeds that both have a figure of."""

    condition: str
    n: int
    mean_baseline: float
    mean_condition: float
    difference: float
    interval: Interval  # Student's t, paired, 95 %; not corrected


@dataclass(frozen=True)
class OfClass:
    """One class: every condition against the baseline."""

    name: str
    comparisons: list[Difference]


def collect(runs_dir: Path, runs: pd.DataFrame, kept: Mapping[str, Kept] | None = None) -> pd.DataFrame:
    """Test figures by class, one row for each run, metric and class; no rows where the task has none.

    Args:
        runs_dir: where the runs lie.
        runs: of a study.
        kept: predictions by signature, of which those give accuracies that have no figures of their own.
    """
    found = {
        run: RunFolder(runs_dir / run).classes() or _accuracies((kept or {}).get(run))
        for run in runs["signature"]
    }
    rows = [
        {**run, "metric": metric, "class": name, VALUE: value}
        for run in runs[list(COLUMNS[:4])].to_dict("records")
        for metric, values in found[run["signature"]].items()
        for name, value in values.items()
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _accuracies(kept: Kept | None) -> dict[str, dict[str, float]]:
    """Top-1 accuracy of each class in percent, by the class's name or else its number."""
    if kept is None:
        return {}
    names = kept.names
    by_class = kept.predictions.accuracy_by_class()
    return {
        TOP1: {names[label] if label < len(names) else str(label): value for label, value in by_class.items()}
    }


def compare(findings: Findings, figures: pd.DataFrame) -> list[OfClass]:
    """Compare conditions class by class in the study's metric, paired by seed.

    Args:
        findings: of the study.
        figures: see `collect`.
    """
    counted = (figures["metric"] == find(findings.metric).name) & (figures["state"] == FINISHED)
    mine = figures[counted].astype({VALUE: float})
    table = mine.pivot(index="class", columns=["condition", "seed"], values=VALUE)
    table = table.reindex(mine["class"].unique())  # in the order of the files
    if findings.baseline not in table:
        return []
    theirs = table[findings.baseline]
    found: dict[str, list[Difference]] = {str(name): [] for name in table.index}
    for condition in (each.condition for each in findings.comparisons if each.condition in table):
        seeds = [seed for seed in table[condition] if seed in theirs]
        pairs = table[condition][seeds].to_numpy(), theirs[seeds].to_numpy()
        for name, ours, base in zip(found, *pairs, strict=True):
            both = np.isfinite(ours) & np.isfinite(base)
            found[name].append(_difference(condition, ours[both], base[both]))
    classes = (OfClass(name, compared) for name, compared in found.items())
    return [one for one in classes if any(each.n for each in one.comparisons)]


def _difference(condition: str, ours: Values, theirs: Values) -> Difference:
    if not len(ours):
        return Difference(condition, 0, math.nan, math.nan, math.nan, statistics.NO_INTERVAL)
    means = float(theirs.mean()), float(ours.mean())
    interval = statistics.t_interval(ours - theirs)
    return Difference(condition, len(ours), *means, float((ours - theirs).mean()), interval)
