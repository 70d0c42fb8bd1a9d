"""What a study found: every condition by itself, and paired with the baseline by seed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ablate.errors import UserError, unknown
from ablate.results import conditions, statistics
from ablate.results.statistics import Interval
from ablate.store.folder import FINISHED
from ablate.store.manifest import Manifest


@dataclass(frozen=True)
class Summary:
    """One condition over its finished seeds; NaN where there is nothing to compute it from."""

    condition: str
    planned: int
    n: int
    mean: float
    sd: float
    interval: Interval  # Student's t, of the mean by itself
    parameters: float
    macs: float  # of one image
    throughput: float  # training images a second, mean over the runs


@dataclass(frozen=True)
class Comparison:
    """One condition against the baseline, over the seeds that finished in both."""

    condition: str
    baseline: str
    seeds: tuple[int, ...]
    differences: tuple[float, ...]  # condition − baseline, seed by seed
    missing: int  # planned seeds that have no pair
    mean_condition: float
    mean_baseline: float
    difference: float
    interval: Interval  # Student's t, paired
    bootstrap: Interval  # BCa
    effect_size: float
    p: float
    p_holm: float = math.nan

    @property
    def n(self) -> int:
        """The number of pairs."""
        return len(self.seeds)

    @property
    def smallest_p(self) -> float:
        """The smallest uncorrected p-value that so many pairs can reach."""
        return statistics.smallest_p(self.n)


@dataclass(frozen=True)
class Findings:
    """A study with its collected runs, summaries and comparisons, in the manifest's order."""

    manifest: Manifest
    runs: pd.DataFrame
    baseline: str
    summaries: list[Summary]
    comparisons: list[Comparison]

    @property
    def metric(self) -> str:
        """The figure that conditions are compared by."""
        return self.manifest.metric

    def unfinished(self) -> pd.DataFrame:
        """The runs that count in no comparison: not finished, or with a figure that is not finite."""
        return self.runs[~usable(self.runs, self.metric)]


def analyse(manifest: Manifest, runs: pd.DataFrame) -> Findings:
    """Summarise and compare the collected runs of a study.

    Differences of accuracies are in percentage points.

    Raises:
        UserError: the baseline is ambiguous or absent, no run could ever have the study's
            metric, or two runs of one condition share a seed.
    """
    if manifest.metric not in runs.select_dtypes("number"):
        raise unknown("metric", manifest.metric, runs.select_dtypes("number").columns)
    _refuse_duplicates(runs)
    baseline = conditions.baseline(manifest)
    names = list(dict.fromkeys(runs["condition"]))
    groups = {name: runs[runs["condition"] == name] for name in names}
    compared = [
        compare(groups[name], groups[baseline], manifest.metric) for name in names if name != baseline
    ]
    corrected = statistics.holm([comparison.p for comparison in compared])
    return Findings(
        manifest=manifest,
        runs=runs,
        baseline=baseline,
        summaries=[summarise(groups[name], manifest.metric) for name in names],
        comparisons=[replace(c, p_holm=float(p)) for c, p in zip(compared, corrected, strict=True)],
    )


def usable(runs: pd.DataFrame, metric: str) -> pd.Series[bool]:
    """Which runs are finished and have a finite figure."""
    figures = runs[metric].to_numpy(dtype=float, na_value=math.nan)
    return (runs["state"] == FINISHED) & np.isfinite(figures)


def summarise(runs: pd.DataFrame, metric: str) -> Summary:
    """Mean, spread and cost of the runs of one condition."""
    finished = runs[usable(runs, metric)]
    figures = finished[metric].to_numpy(dtype=float)
    return Summary(
        condition=runs["condition"].iloc[0],
        planned=len(runs),
        n=len(finished),
        mean=_mean(finished[metric]),
        sd=float(figures.std(ddof=1)) if len(figures) > 1 else math.nan,
        interval=statistics.t_interval(figures),
        parameters=_mean(finished["parameters"]),
        macs=_mean(finished["macs"]),
        throughput=_mean(finished["throughput"]),
    )


def compare(runs: pd.DataFrame, baseline: pd.DataFrame, metric: str) -> Comparison:
    """Pair the runs of one condition with the baseline's by seed; the p-value is uncorrected."""
    ours, theirs = (
        group[usable(group, metric)].set_index("seed")[metric].astype(float) for group in (runs, baseline)
    )
    seeds = ours.index.intersection(theirs.index).sort_values()
    differences = (ours[seeds] - theirs[seeds]).to_numpy()
    return Comparison(
        condition=runs["condition"].iloc[0],
        baseline=baseline["condition"].iloc[0],
        seeds=tuple(int(seed) for seed in seeds),
        differences=tuple(float(difference) for difference in differences),
        missing=len({*runs["seed"], *baseline["seed"]}) - len(seeds),
        mean_condition=_mean(ours[seeds]),
        mean_baseline=_mean(theirs[seeds]),
        difference=float(differences.mean()) if len(seeds) else math.nan,
        interval=statistics.t_interval(differences),
        bootstrap=statistics.bca_interval(differences),
        effect_size=statistics.effect_size(differences),
        p=statistics.sign_flip_p(differences),
    )


def _refuse_duplicates(runs: pd.DataFrame) -> None:
    twice = runs[runs.duplicated(["condition", "seed"], keep=False)]
    if len(twice):
        condition, seed = twice[["condition", "seed"]].iloc[0]
        same = twice[(twice["condition"] == condition) & (twice["seed"] == seed)]
        raise UserError(
            f"condition {condition!r} has {len(same)} runs with seed {seed}: {', '.join(same['signature'])}",
            "runs of one condition differ in the seed alone: make what else varies a factor of the study",
        )


def _mean(column: pd.Series) -> float:
    return float(column.mean()) if column.notna().any() else math.nan
