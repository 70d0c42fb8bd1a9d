"""Figures of single classes: which of them a condition gains or loses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ablate.results import comparisons
from ablate.results.comparisons import Comparison, Findings
from ablate.results.predictions import Kept
from ablate.store.folder import RunFolder
from ablate.store.metrics import find

VALUE = "value"
TOP1 = "top1"
COLUMNS = ("condition", "seed", "signature", "state", "metric", "class", VALUE)


@dataclass(frozen=True)
class OfClass:
    """One class: every condition against the baseline, p-values uncorrected."""

    name: str
    comparisons: list[Comparison]


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
    mine = figures[figures["metric"] == find(findings.metric).name]
    found = []
    for name, rows in mine.groupby("class", sort=False):
        groups = comparisons.by_condition(rows)
        baseline = groups.pop(findings.baseline, None)
        if baseline is not None:
            compared = [comparisons.compare(group, baseline, VALUE) for group in groups.values()]
            found.append(OfClass(str(name), compared))
    return [one for one in found if any(each.n for each in one.comparisons)]
