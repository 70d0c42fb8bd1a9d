"""Findings of a study: every condition by itself, and compared with the baseline in pairs by seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate.errors import UserError, unknown
from ablate.results import conditions, equivalence, families, statistics, verdicts
from ablate.results.families import Family
from ablate.results.statistics import NO_INTERVAL, Interval
from ablate.results.verdicts import Margin, Verdict
from ablate.store.folder import FINISHED
from ablate.store.manifest import Manifest

Figures = NDArray[np.float64]


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
    data_wait: float = math.nan  # share of the training time spent waiting for data, median over the runs
    mfu: float = math.nan  # model FLOP utilisation, between 0 and 1, median over the runs


@dataclass(frozen=True)
class Comparison:
    """One condition against the baseline, over the seeds that finished in both.

    Where the study asks for unpaired comparisons, `paired` is False, `seeds` are those of the smaller
    group, the differences are none, the interval is Welch's, the p-value the permutation test's, and
    the effect size Cohen's d with the pooled standard deviation.

    Comparisons with a study's baseline have a simultaneous interval and a verdict; others (the steps of a
    walk, conditions at one budget) have neither.
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
    sd: float = math.nan  # of the differences; unpaired: pooled over both groups
    interval_90: Interval = NO_INTERVAL  # as `interval`, at 90 %
    standard_error: float = math.nan  # of the difference
    degrees: float = math.nan  # of freedom, of the standard error
    simultaneous: Interval = NO_INTERVAL  # 95 %, over all comparisons with the baseline
    p_max: float = math.nan  # step-down max-|t| over sign flips
    margin: float = math.nan  # of equivalence
    verdict: Verdict | None = None

    @property
    def n(self) -> int:
        """The number of pairs, or of the runs of the smaller group."""
        return len(self.seeds)

    @property
    def seeds_needed(self) -> int | None:
        """Seeds needed to show a true difference of this effect size with 80 % power, at 5 %."""
        return statistics.seeds_needed(self.effect_size, paired=self.paired)

    @property
    def seeds_for_equivalence(self) -> int | None:
        """Seeds needed to show equivalence with 80 % power, if there is no true difference."""
        return equivalence.seeds_needed(self.margin, self.sd, paired=self.paired)

    @property
    def p_equivalence(self) -> float:
        """p-value of two one-sided t-tests against the margin."""
        return equivalence.tost_p(self.difference, self.standard_error, self.degrees, self.margin)


@dataclass(frozen=True)
class Findings:
    """A study with its collected runs, summaries and comparisons, in the manifest's order."""

    manifest: Manifest
    runs: pd.DataFrame
    baseline: str
    summaries: list[Summary]
    comparisons: list[Comparison]
    margin: Margin
    family: Family

    @property
    def metric(self) -> str:
        """The figure that conditions are compared by."""
        return self.manifest.metric

    @cached_property
    def groups(self) -> dict[str, pd.DataFrame]:
        """The runs of every condition."""
        return by_condition(self.runs)

    @property
    def paired(self) -> bool:
        """True if comparisons are within seeds."""
        return all(comparison.paired for comparison in self.comparisons)

    def unfinished(self) -> pd.DataFrame:
        """The runs that count in no comparison: not finished, or with a figure that is not finite."""
        return self.runs[~usable(self.runs, self.metric)]


def analyse(
    manifest: Manifest, runs: pd.DataFrame, *, paired: bool = True, margin: float | None = None
) -> Findings:
    """Summarise and compare the collected runs of a study.

    Differences of accuracies are in percentage points. Runs are paired by seed unless `paired` is
    False, for studies whose seeds have nothing in common. `margin` is that of equivalence, instead of the
    study's own or the default.

    Raises:
        UserError: the baseline is ambiguous or absent, no run could ever have the study's
            metric, two runs of one condition share a seed, or the margin is not a positive number.
    """
    if manifest.metric not in runs.select_dtypes("number"):
        raise unknown("metric", manifest.metric, runs.select_dtypes("number").columns)
    _refuse_duplicates(runs)
    baseline = conditions.baseline(manifest)
    names = list(dict.fromkeys(runs["condition"]))
    groups = by_condition(runs)
    contrast = compare if paired else compare_unpaired
    compared = [
        contrast(groups[name], groups[baseline], manifest.metric) for name in names if name != baseline
    ]
    corrected = statistics.holm([comparison.p for comparison in compared])
    compared = [replace(c, p_holm=float(p)) for c, p in zip(compared, corrected, strict=True)]
    figures = {name: by_seed(group, manifest.metric) for name, group in groups.items()}
    others = [figures[comparison.condition] for comparison in compared]
    family = families.against_baseline(figures[baseline], others, paired=paired)
    chosen = verdicts.margin(manifest, baseline, figures[baseline].values(), margin)
    return Findings(
        manifest=manifest,
        runs=runs,
        baseline=baseline,
        summaries=[summarise(groups[name], manifest.metric) for name in names],
        comparisons=_judged(compared, family, chosen, manifest.metric),
        margin=chosen,
        family=family,
    )


def _judged(compared: Sequence[Comparison], family: Family, margin: Margin, metric: str) -> list[Comparison]:
    """The comparisons of a family with what they have as its members, and with their verdicts."""
    if not compared:
        return []
    flips = [dict(zip(each.seeds, each.differences, strict=bool(each.differences))) for each in compared]
    return [
        replace(
            each,
            simultaneous=interval,
            p_max=float(p),
            margin=margin.value,
            verdict=verdicts.decide(interval, each.interval_90, margin.value, metric),
        )
        for each, interval, p in zip(compared, family.intervals, families.max_t_p(flips), strict=True)
    ]


def by_condition(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Collected runs by condition, in their order."""
    return {str(name): group for name, group in runs.groupby("condition", sort=False)}


def usable(runs: pd.DataFrame, metric: str) -> pd.Series[bool]:
    """Return the runs that are finished and have a finite figure."""
    figures = runs[metric].to_numpy(dtype=float, na_value=math.nan)
    return pd.Series((runs["state"].to_numpy(dtype=object) == FINISHED) & np.isfinite(figures), runs.index)


def by_seed(runs: pd.DataFrame, metric: str) -> dict[int, float]:
    """The usable figures of one condition."""
    kept = usable(runs, metric).to_numpy()
    figures = runs[metric].to_numpy(dtype=float, na_value=math.nan)[kept]
    return dict(zip(runs["seed"].to_numpy()[kept].tolist(), figures.tolist(), strict=True))


def summarise(runs: pd.DataFrame, metric: str) -> Summary:
    """Mean, spread and cost of the runs of one condition."""
    finished = runs[usable(runs, metric)]
    figures = finished[metric].to_numpy(dtype=float)

    def cost(column: str, of: Callable[[Figures], float]) -> float:
        found = (
            finished[column].to_numpy(dtype=float, na_value=math.nan) if column in finished else np.array([])
        )
        found = found[np.isfinite(found)]
        return float(of(found)) if len(found) else math.nan

    return Summary(
        condition=runs["condition"].iloc[0],
        planned=len(runs),
        n=len(finished),
        mean=_mean(figures),
        sd=float(figures.std(ddof=1)) if len(figures) > 1 else math.nan,
        interval=statistics.t_interval(figures),
        parameters=cost("parameters", np.mean),
        macs=cost("macs", np.mean),
        throughput=cost("throughput", np.median),
        memory=cost("peak_memory_bytes", np.median),
        data_wait=cost("data_wait", np.median),
        mfu=cost("mfu", np.median),
    )


def compare(runs: pd.DataFrame, baseline: pd.DataFrame, metric: str) -> Comparison:
    """Pair the runs of one condition with the baseline's by seed; the p-value is uncorrected."""
    ours, theirs = (by_seed(group, metric) for group in (runs, baseline))
    seeds = sorted(ours.keys() & theirs.keys())
    differences = np.array([ours[seed] - theirs[seed] for seed in seeds])
    return Comparison(
        condition=runs["condition"].iloc[0],
        baseline=baseline["condition"].iloc[0],
        seeds=tuple(seeds),
        differences=tuple(differences.tolist()),
        missing=len({*runs["seed"], *baseline["seed"]}) - len(seeds),
        mean_condition=_mean([ours[seed] for seed in seeds]),
        mean_baseline=_mean([theirs[seed] for seed in seeds]),
        difference=_mean(differences),
        interval=statistics.t_interval(differences),
        bootstrap=statistics.bca_interval(differences),
        effect_size=statistics.effect_size(differences),
        p=statistics.sign_flip_p(differences),
        smallest_p=statistics.smallest_p(len(seeds)),
        sd=float(differences.std(ddof=1)) if len(seeds) > 1 else math.nan,
        interval_90=statistics.t_interval(differences, equivalence.CONFIDENCE),
        standard_error=statistics.standard_error(differences),
        degrees=len(seeds) - 1,
    )


def compare_unpaired(runs: pd.DataFrame, baseline: pd.DataFrame, metric: str) -> Comparison:
    """Two conditions as groups of runs that have nothing in common; the p-value is uncorrected."""
    both = [by_seed(group, metric) for group in (runs, baseline)]
    ours, theirs = (np.array(list(group.values())) for group in both)
    smaller = min(both, key=len)
    ways = math.comb(len(ours) + len(theirs), len(ours))
    error, degrees = statistics.welch_error(ours, theirs)
    return Comparison(
        condition=runs["condition"].iloc[0],
        baseline=baseline["condition"].iloc[0],
        seeds=tuple(sorted(smaller)),
        differences=(),
        missing=len(runs) + len(baseline) - len(ours) - len(theirs),
        mean_condition=_mean(ours),
        mean_baseline=_mean(theirs),
        difference=_mean(ours) - _mean(theirs),
        interval=statistics.welch_interval(ours, theirs),
        bootstrap=statistics.NO_INTERVAL,
        effect_size=(_mean(ours) - _mean(theirs)) / sd if (sd := _pooled_sd(ours, theirs)) > 0 else math.nan,
        p=statistics.permutation_p(ours, theirs),
        smallest_p=(2 if len(ours) == len(theirs) else 1) / ways if smaller else math.nan,
        paired=False,
        sd=sd,
        interval_90=statistics.welch_interval(ours, theirs, equivalence.CONFIDENCE),
        standard_error=error,
        degrees=degrees,
    )


def _pooled_sd(ours: Figures, theirs: Figures) -> float:
    degrees = len(ours) + len(theirs) - 2
    if min(len(ours), len(theirs)) < 2:
        return math.nan
    squares = (len(ours) - 1) * ours.var(ddof=1) + (len(theirs) - 1) * theirs.var(ddof=1)
    return math.sqrt(squares / degrees)


def _refuse_duplicates(runs: pd.DataFrame) -> None:
    twice = runs[runs.duplicated(["condition", "seed"], keep=False)]
    if len(twice):
        condition, seed = twice[["condition", "seed"]].iloc[0]
        same = twice[(twice["condition"] == condition) & (twice["seed"] == seed)]
        raise UserError(
            f"condition {condition!r} has {len(same)} runs with seed {seed}: {', '.join(same['signature'])}",
            "runs of one condition differ in the seed alone: make what else varies a factor of the study",
        )


def _mean(figures: Sequence[float] | Figures) -> float:
    return float(np.mean(figures)) if len(figures) else math.nan
