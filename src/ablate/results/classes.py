"""Figures of single classes: which of them a condition gains or loses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ablate.results import comparisons
from ablate.results.comparisons import Comparison, Findings
from ablate.store.folder import RunFolder
from ablate.store.metrics import find

VALUE = "value"
COLUMNS = ("condition", "seed", "signature", "state", "metric", "class", VALUE)


@dataclass(frozen=True)
class OfClass:
    """One class: every condition against the baseline, p-values uncorrected."""

    name: str
    comparisons: list[Comparison]


def collect(runs_dir: Path, runs: pd.DataFrame) -> pd.DataFrame:
    """Test figures by class, one row for each run, metric and class; no rows where the task has none."""
    rows = [
        {**run, "metric": metric, "class": name, VALUE: value}
        for run in runs[list(COLUMNS[:4])].to_dict("records")
        for metric, values in RunFolder(runs_dir / run["signature"]).classes().items()
        for name, value in values.items()
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


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
