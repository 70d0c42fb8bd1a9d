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
    throughput: float  # training images a second, median over the runs
    memory: float  # peak, in bytes, median over the runs


@dataclass(frozen=True)
class Comparison:
    """One condition against the baseline, over the seeds that finished in both.

    Where the study asks for unpaired comparisons, `paired` is False, `seeds` are those of the smaller
    group, the differences are none, the interval is Welch's, the p-value the permutation test's, and
    the effect size Cohen's d with the pooled standard deviation.
    """

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
    smallest_p: float  # uncorrected, that so many runs can reach
    p_holm: float = math.nan
    paired: bool = True

    @property
    def n(self) -> int:
        """The number of pairs, or of the runs of the smaller group."""
        return len(self.seeds)

    @property
    def seeds_needed(self) -> int | None:
        """How many seeds would show a true difference of this effect size with 80 % power, at 5 %."""
        return statistics.seeds_needed(self.effect_size, paired=self.paired)


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

    @property
    def paired(self) -> bool:
        """Whether comparisons are within seeds."""
        return all(comparison.paired for comparison in self.comparisons)

    def unfinished(self) -> pd.DataFrame:
        """The runs that count in no comparison: not finished, or with a figure that is not finite."""
        return self.runs[~usable(self.runs, self.metric)]


def analyse(manifest: Manifest, runs: pd.DataFrame, *, paired: bool = True) -> Findings:
    """Summarise and compare the collected runs of a study.

    Differences of accuracies are in percentage points. Runs are paired by seed unless `paired` is
    False, for studies whose seeds have nothing in common.

    Raises:
        UserError: the baseline is ambiguous or absent, no run could ever have the study's
            metric, or two runs of one condition share a seed.
    """
    if manifest.metric not in runs.select_dtypes("number"):
        raise unknown("metric", manifest.metric, runs.select_dtypes("number").columns)
    _refuse_duplicates(runs)
    baseline = conditions.baseline(manifest)
    names = list(dict.fromkeys(runs["condition"]))
    groups = dict(list(runs.groupby("condition", sort=False)))
    contrast = compare if paired else compare_unpaired
    compared = [
        contrast(groups[name], groups[baseline], manifest.metric) for name in names if name != baseline
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
        throughput=_median(finished, "throughput"),
        memory=_median(finished, "peak_memory_bytes"),
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
        smallest_p=statistics.smallest_p(len(seeds)),
    )


def compare_unpaired(runs: pd.DataFrame, baseline: pd.DataFrame, metric: str) -> Comparison:
    """Two conditions as groups of runs that have nothing in common; the p-value is uncorrected."""
    ours, theirs = (
        group[usable(group, metric)].set_index("seed")[metric].astype(float) for group in (runs, baseline)
    )
    smaller = min(ours, theirs, key=len)
    difference = float(ours.mean() - theirs.mean()) if len(smaller) else math.nan
    ways = math.comb(len(ours) + len(theirs), len(ours))
    return Comparison(
        condition=runs["condition"].iloc[0],
        baseline=baseline["condition"].iloc[0],
        seeds=tuple(int(seed) for seed in smaller.index),
        differences=(),
        missing=len(runs) + len(baseline) - len(ours) - len(theirs),
        mean_condition=_mean(ours),
        mean_baseline=_mean(theirs),
        difference=difference,
        interval=statistics.welch_interval(ours.to_numpy(), theirs.to_numpy()),
        bootstrap=statistics.NO_INTERVAL,
        effect_size=_cohens_d(ours, theirs),
        p=statistics.permutation_p(ours.to_numpy(), theirs.to_numpy()),
        smallest_p=(2 if len(ours) == len(theirs) else 1) / ways if len(smaller) else math.nan,
        paired=False,
    )


def _cohens_d(ours: pd.Series[float], theirs: pd.Series[float]) -> float:
    degrees = len(ours) + len(theirs) - 2
    if min(len(ours), len(theirs)) < 2:
        return math.nan
    pooled = math.sqrt(((len(ours) - 1) * ours.var() + (len(theirs) - 1) * theirs.var()) / degrees)
    return float(ours.mean() - theirs.mean()) / pooled if pooled > 0 else math.nan


def _refuse_duplicates(runs: pd.DataFrame) -> None:
    twice = runs[runs.duplicated(["condition", "seed"], keep=False)]
    if len(twice):
        condition, seed = twice[["condition", "seed"]].iloc[0]
        same = twice[(twice["condition"] == condition) & (twice["seed"] == seed)]
        raise UserError(
            f"condition {condition!r} has {len(same)} runs with seed {seed}: {', '.join(same['signature'])}",
            "runs of one condition differ in the seed alone: make what else varies a factor of the study",
        )


def _median(runs: pd.DataFrame, column: str) -> float:
    figures = runs[column] if column in runs else pd.Series(dtype=float)
    return float(figures.median()) if figures.notna().any() else math.nan


def _mean(column: pd.Series) -> float:
    return float(column.mean()) if column.notna().any() else math.nan
