"""Learning curves: their bands, the time to a given accuracy, and runs that did not converge."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ablate.results import statistics
from ablate.results.comparisons import Findings
from ablate.store.folder import FINISHED
from ablate.store.metrics import DEFAULT, Metric, find, of_columns, of_task

ENOUGH = 5  # runs for an interval that does not fill a figure
COLLAPSE = 5.0  # percentage points that a run may end below its best epoch


def column(metrics: pd.DataFrame) -> str:
    """Return the column of a learning curve: the validation metric that selects checkpoints of the task."""
    return (of_columns(metrics.columns) or of_task(DEFAULT)).validation_column


@dataclass(frozen=True)
class Reached:
    """When the runs of a condition come to a given value of the validation metric."""

    condition: str
    metric: Metric
    target: float
    asked: bool  # by the user; else it is what the baseline's median run ends with
    n: int  # finished runs
    reached: int  # of them
    epochs: float  # median over the runs that reach it, between epochs by a straight line
    seconds: float  # of training


def others(metrics: pd.DataFrame) -> list[str]:
    """Return the columns of all other curves: the training loss, and the other validation metrics."""
    return [
        name
        for name in metrics.columns
        if (name == "train_loss" or name.startswith("validation_"))
        and name != column(metrics)
        and np.isfinite(pd.to_numeric(metrics[name], errors="coerce")).any()
    ]


def band(metrics: pd.DataFrame, condition: str, shown: str | None = None) -> pd.DataFrame:
    """Mean, band, least and greatest of a column by epoch; of that which `column` returns if None.

    The band is the 95 % t interval of five runs or more, and the range of fewer, whose interval would fill a
    figure. Over its finished runs, or while it has none over those under way; by the epochs that all of
    these have.
    """
    if (shown := shown or column(metrics)) not in metrics:
        return pd.DataFrame()
    rows = metrics[(metrics["condition"] == condition) & np.isfinite(metrics[shown].astype(float))]
    finished = rows[rows["state"] == FINISHED]
    rows = finished if len(finished) else rows
    curve = rows.groupby("epoch")[shown].agg(["mean", "min", "max", "count"])
    groups = [values.to_numpy() for _, values in rows.groupby("epoch")[shown]]
    bands = [
        statistics.t_interval(values) if len(values) >= ENOUGH else (values.min(), values.max())
        for values in groups
    ]
    curve["low"], curve["high"] = ([bounds[end] for bounds in bands] for end in (0, 1))
    return curve[curve["count"] == curve["count"].max()]


def time_to(findings: Findings, metrics: pd.DataFrame, target: float | None = None) -> list[Reached]:
    """When each condition comes to `target`; by default to what the baseline's median run ends with."""
    if (shown := column(metrics)) not in metrics or metrics.empty:
        return []
    finished = metrics[metrics["state"] == FINISHED].sort_values("epoch")
    asked = target is not None
    if target is None:
        baseline = finished[finished["condition"] == findings.baseline]
        if baseline.empty:
            return []
        target = float(baseline.groupby("signature")[shown].last().median())
    when: dict[str, list[tuple[float, float]]] = {summary.condition: [] for summary in findings.summaries}
    for _, run in finished.groupby("signature", sort=False):
        epoch = _crossing(run, shown, target)
        when[run["condition"].iloc[0]].append((epoch, _seconds(run, epoch)))
    found = []
    for condition, reached in when.items():
        epochs, seconds = ([each[place] for each in reached] for place in (0, 1))
        hits = [epoch for epoch in epochs if math.isfinite(epoch)]
        found.append(
            Reached(
                condition,
                find(shown),
                target,
                asked,
                len(reached),
                len(hits),
                float(np.median(hits)) if hits else math.nan,
                float(np.nanmedian(seconds)) if np.isfinite(seconds).any() else math.nan,
            )
        )
    return found


def not_converged(metrics: pd.DataFrame) -> dict[str, str]:
    """Finished runs that did not learn, with the reason, by signature. They count like all others.

    The training loss is not below that of the first epoch, or is not finite, or a validation metric in
    percent ends more than COLLAPSE points below its best.
    """
    reasons: dict[str, str] = {}
    if metrics.empty:
        return reasons
    shown = column(metrics)
    metric = find(shown)
    up = 1 if metric.higher else -1
    finished = metrics[metrics["state"] == FINISHED].sort_values("epoch")
    for signature, run in finished.groupby("signature", sort=False):
        loss = run["train_loss"].to_numpy(dtype=float) if "train_loss" in run else np.array([])
        curve = run[shown].to_numpy(dtype=float) if shown in run else np.array([])
        if len(loss) and not np.isfinite(loss[-1]):
            reasons[str(signature)] = "its training loss is not finite"
        elif len(loss) > 1 and loss[-1] >= loss[0]:
            reasons[str(signature)] = "its training loss did not fall"
        elif len(curve) and metric.unit == "%" and np.nanmax(up * curve) - up * curve[-1] > COLLAPSE:
            reasons[str(signature)] = f"it ended more than {COLLAPSE:g} points below its best epoch"
    return reasons


def _crossing(run: pd.DataFrame, shown: str, target: float) -> float:
    """The epoch at which a run first comes to `target`; NaN if it never does."""
    epochs, curve = (run[name].to_numpy(dtype=float) for name in ("epoch", shown))
    for index in range(len(curve)):
        if curve[index] == target or find(shown).better(curve[index], target):
            if index == 0:
                return float(epochs[0])
            share = (target - curve[index - 1]) / (curve[index] - curve[index - 1])
            return float(epochs[index - 1] + share * (epochs[index] - epochs[index - 1]))
    return math.nan


def _seconds(run: pd.DataFrame, epoch: float) -> float:
    if "seconds" not in run or not math.isfinite(epoch):
        return math.nan
    ends = np.concatenate([[0.0], run["seconds"].to_numpy(dtype=float).cumsum()])
    return float(np.interp(epoch, np.concatenate([[0.0], run["epoch"].to_numpy(dtype=float)]), ends))
