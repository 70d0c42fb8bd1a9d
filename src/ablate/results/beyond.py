"""Effects over several hosts, data sets or studies: what holds on average, and what to expect in a new one.

Every combination of levels of these factors is a *place*. In each of them, a condition is compared with the
baseline there, paired by seed. The differences of the places scatter around a mean by more than their noise:
random effects, whose variance between places is estimated by restricted maximum likelihood (Viechtbauer
2005), with the interval of Hartung and Knapp (2001) for the mean and that of Higgins et al. (2009) for a new
place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from ablate.results import statistics
from ablate.results.comparisons import by_seed
from ablate.results.conditions import short_levels, short_names
from ablate.results.statistics import CONFIDENCE, NO_INTERVAL, Interval
from ablate.store.manifest import Manifest

CONTEXT = ("host", "data", "task", "study")  # factors that say where, and not what
DRAWS = 2000  # of the bootstrap of P(better)
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Place:
    """One host, data set or study.

    Attributes:
        name: levels of the factors that say where.
        differences: from the baseline there, of each seed.
    """

    name: str
    differences: tuple[float, ...]

    @property
    def difference(self) -> float:
        """The mean difference."""
        return float(np.mean(self.differences))

    @property
    def interval(self) -> Interval:
        """95 % Student's t interval, of this place alone."""
        return statistics.t_interval(self.differences)


@dataclass(frozen=True)
class Effect:
    """The effect of a condition over all places.

    Attributes:
        condition: levels of the factors that say what.
        places: that have two pairs or more.
        mean: of the effects of places.
        interval: 95 %, of the mean.
        prediction: 95 %, of the effect in a new place; none for two places.
        between: standard deviation of the effects of places, beyond the noise within them.
        better: probability that a pair of runs of one seed in a place is in favour of the condition.
        better_interval: 95 %, by a bootstrap of places and of seeds within them.
    """

    condition: str
    places: tuple[Place, ...]
    mean: float
    interval: Interval
    prediction: Interval
    between: float
    better: float
    better_interval: Interval


@dataclass(frozen=True)
class Beyond:
    """All effects over places."""

    baseline: str
    kinds: tuple[str, ...]  # the factors that say where
    effects: tuple[Effect, ...]


def analyse(manifest: Manifest, runs: pd.DataFrame, *, higher: bool = True) -> Beyond | None:
    """Analyse a study whose factors include one of CONTEXT and another one; None for others.

    Also None where no condition has two pairs in two places.

    Args:
        manifest: of the study.
        runs: one row per run, as `collect` returns them.
        higher: a higher figure is better.
    """
    if (laid := laid_out(manifest, runs)) is None:
        return None
    kinds, treatments, where, what = laid
    reference = _reference(manifest, treatments, what, runs)
    figures = {
        (str(place), str(condition)): by_seed(group, manifest.metric)
        for (place, condition), group in runs.groupby([where, what], sort=False)
    }
    effects = []
    for condition in dict.fromkeys(what):
        if condition == reference:
            continue
        places = []
        for place in dict.fromkeys(where):
            ours, theirs = (figures.get((place, name), {}) for name in (condition, reference))
            seeds = sorted(ours.keys() & theirs.keys())
            if len(seeds) > 1:
                places.append(Place(place, tuple(ours[seed] - theirs[seed] for seed in seeds)))
        if len(places) > 1:
            effects.append(_effect(condition, places, higher))
    return Beyond(reference, tuple(kinds), tuple(effects)) if effects else None


class LaidOut(NamedTuple):
    """Places and conditions of a study.

    Attributes:
        kinds: factors that say where runs are compared.
        treatments: factors that say what is compared.
        where: place of each run.
        what: condition of each run within its place.
    """

    kinds: list[str]
    treatments: list[str]
    where: pd.Series[str]
    what: pd.Series[str]


def laid_out(manifest: Manifest, runs: pd.DataFrame) -> LaidOut | None:
    """Separate places from conditions; None where a study has one place, or nothing to compare."""
    kinds = [factor for factor in manifest.factors if factor in CONTEXT and runs[factor].nunique() > 1]
    treatments = [factor for factor in manifest.factors if factor not in kinds]
    if not kinds or not treatments:
        return None
    return LaidOut(kinds, treatments, _named(runs, kinds), _named(runs, treatments))


def random_effects(
    effects: Sequence[float], errors: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[float, Interval, Interval, float]:
    """Mean of effects, its interval, that of a new effect, and the standard deviation between effects.

    The interval is Hartung and Knapp's, not narrower than that of effects that scatter by their errors alone.

    Args:
        effects: two or more.
        errors: standard error of each.
        confidence: of the intervals.
    """
    y, variances = np.asarray(effects), np.maximum(np.asarray(errors) ** 2, 1e-300)
    between = _restricted(y, variances)
    weights = 1 / (variances + between)
    mean = float(weights @ y / weights.sum())
    scatter = float(weights @ (y - mean) ** 2 / (len(y) - 1))  # Hartung's and Knapp's, never below 1
    squared = max(scatter, 1.0) / float(weights.sum())
    half = statistics.t_quantile(confidence, len(y) - 1) * math.sqrt(squared)
    prediction = NO_INTERVAL
    if len(y) > 2:
        wide = statistics.t_quantile(confidence, len(y) - 2) * math.sqrt(between + squared)
        prediction = (mean - wide, mean + wide)
    return mean, (mean - half, mean + half), prediction, math.sqrt(between)


def _restricted(y: Array, variances: Array) -> float:
    """The variance between effects by restricted maximum likelihood."""
    spread = float(np.var(y, ddof=1))
    if spread == 0:
        return 0.0

    def loss(between: float) -> float:
        weights = 1 / (variances + between)
        mean = weights @ y / weights.sum()
        return float(-np.log(weights).sum() + np.log(weights.sum()) + weights @ (y - mean) ** 2)

    found = minimize_scalar(
        loss, bounds=(0.0, 10 * spread), method="bounded", options={"xatol": 1e-9 * spread}
    )
    return 0.0 if loss(0.0) <= found.fun else float(found.x)


def _effect(condition: str, places: Sequence[Place], higher: bool) -> Effect:
    errors = _errors([place.differences for place in places])
    mean, interval, prediction, between = random_effects([place.difference for place in places], errors)
    signs = [np.sign(place.differences) * (1 if higher else -1) for place in places]
    shares = [(1 + each) / 2 for each in signs]  # a tie counts half
    generator = np.random.default_rng(0)
    drawn = np.array([[generator.choice(each, (DRAWS, len(each))).mean(1)] for each in shares])[:, 0]
    chosen = generator.integers(len(places), size=(DRAWS, len(places)))
    means = drawn[chosen, np.arange(DRAWS)[:, None]].mean(1)
    low, high = np.quantile(means, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    better = float(np.mean([each.mean() for each in shares]))
    bounds = (float(low), float(high))
    return Effect(condition, tuple(places), mean, interval, prediction, between, better, bounds)


def _errors(differences: Sequence[Sequence[float]]) -> list[float]:
    """Standard error of the mean in each place, by the noise of all places together."""
    squares = sum(float(np.var(each)) * len(each) for each in differences)
    pooled = squares / sum(len(each) - 1 for each in differences)
    return [math.sqrt(pooled / len(each)) for each in differences]


def _named(runs: pd.DataFrame, factors: Sequence[str]) -> pd.Series[str]:
    """Levels of some factors of each run, in one text."""
    parts = []
    for factor, short in zip(factors, short_names(factors), strict=True):
        levels = runs[factor].astype(str)
        called = levels.map(short_levels(levels))
        parts.append(called if len(factors) == 1 else f"{short}=" + called)
    return pd.Series([", ".join(row) for row in zip(*parts, strict=True)], runs.index)


def _reference(
    manifest: Manifest, treatments: Sequence[str], what: pd.Series[str], runs: pd.DataFrame
) -> str:
    """The condition that has the baseline's levels; the first one without a declared baseline."""
    fits = pd.Series(True, runs.index)
    for factor in treatments:
        if factor in manifest.baseline:
            fits &= runs[factor].astype(str) == str(manifest.baseline[factor])
    return str(what[fits].iloc[0] if fits.any() else what.iloc[0])
