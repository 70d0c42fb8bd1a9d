"""Statistics of paired differences, on plain arrays.

Pairs are runs with the same seed; `welch_interval` and `permutation_p` are for studies that have
none and says so.

Figures and tables show Student's t interval. With a handful of seeds a bootstrap has too few
values to draw from, and its interval is too narrow: for three normal differences the nominal
95 % BCa interval covers the true value some 72 times in a hundred, for five 84 and for twenty 93,
the t interval 95 times (tests/results/test_statistics.py simulates both). The bootstrap stands
beside it as a check for many pairs whose differences are far from normal.

Everything here is checked against scipy.stats and statsmodels, and written out where importing
these (two and three seconds) would take longer than what it is for; quantiles are scipy's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import nctdtr, stdtr, stdtrit

CONFIDENCE = 0.95
EXACT_PAIRS = 16  # up to here all 2^n sign assignments are counted
RESAMPLES = 9999
FLIPS = 99_999
MANY_NUMBERS = 4_000_000  # that are drawn at a time: studies of thousands of seeds get fewer resamples
MANY_SEEDS = 10_000  # more than anybody runs

Interval = tuple[float, float]
NO_INTERVAL: Interval = (math.nan, math.nan)


def t_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Student's t interval of a mean; NaN for fewer than two values or values all equal.

    Equal values say that the scale is coarser than the spread, not that the mean is certain.
    """
    values = np.asarray(values, dtype=float)
    if not _varies(values):
        return NO_INTERVAL
    half_width = t_quantile(confidence, values.size - 1) * values.std(ddof=1) / math.sqrt(values.size)
    return float(values.mean() - half_width), float(values.mean() + half_width)


def t_quantile(confidence: float, degrees: float) -> float:
    """The t that |T| stays below with this probability, T being Student's with so many degrees."""
    return float(stdtrit(degrees, (1 + confidence) / 2))


def p_of_difference(
    hypotheses: ArrayLike, difference: float, error: float, degrees: float
) -> NDArray[np.float64]:
    """Two-sided p-value of a t-test of each hypothetical true difference.

    As a function of the hypothesis this is the p-value function, and one minus it is the confidence curve
    (Birnbaum 1961, "Confidence curves: an omnibus technique for estimation and testing statistical
    hypotheses", Journal of the American Statistical Association 56; Schweder and Hjort 2002, "Confidence and
    likelihood", doi:10.1111/1467-9469.00285): the hypotheses with a p of 1 − c or more are the interval at
    confidence c.

    Args:
        hypotheses: true differences.
        difference: the estimate.
        error: its standard error.
        degrees: degrees of freedom of the error.
    """
    distance = np.abs(np.asarray(hypotheses, dtype=float) - difference) / error
    return np.asarray(2 * stdtr(degrees, -distance))


def welch_interval(values: ArrayLike, others: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Welch's interval of mean(values) − mean(others), two groups that are not paired (Welch 1947)."""
    error, degrees = welch_error(values, others)
    middle = (
        float(np.mean(np.asarray(values)) - np.mean(np.asarray(others))) if math.isfinite(error) else math.nan
    )
    half_width = t_quantile(confidence, degrees) * error
    return middle - half_width, middle + half_width


def welch_error(values: ArrayLike, others: ArrayLike) -> tuple[float, float]:
    """Standard error of mean(values) − mean(others) and its degrees of freedom; NaN where there is none."""
    groups = [np.asarray(group, dtype=float) for group in (values, others)]
    if any(group.size < 2 for group in groups) or not any(map(_varies, groups)):
        return math.nan, math.nan
    squared = [group.var(ddof=1) / group.size for group in groups]
    degrees = sum(squared) ** 2 / sum(
        s**2 / (group.size - 1) for s, group in zip(squared, groups, strict=True)
    )
    return math.sqrt(sum(squared)), float(degrees)


def standard_error(values: ArrayLike) -> float:
    """Standard error of a mean; NaN for fewer than two values or values all equal."""
    values = np.asarray(values, dtype=float)
    return float(values.std(ddof=1) / math.sqrt(values.size)) if _varies(values) else math.nan


def bca_interval(values: ArrayLike, confidence: float = CONFIDENCE, resamples: int = RESAMPLES) -> Interval:
    """Bias-corrected and accelerated bootstrap interval of a mean (Efron 1987).

    The resamples are drawn with a fixed seed. NaN for fewer than three values, for values all
    equal, and where the bias cannot be estimated.
    """
    values = np.asarray(values, dtype=float)
    if values.size < 3 or not _varies(values):
        return NO_INTERVAL
    mean, resamples = values.mean(), min(resamples, max(MANY_NUMBERS // values.size, 999))
    drawn = np.random.default_rng(0).integers(0, values.size, (resamples, values.size))
    means = values[drawn].mean(axis=1)
    below = (np.mean(means < mean) + np.mean(means <= mean)) / 2
    if not 0 < below < 1:
        return NO_INTERVAL
    normal = NormalDist()
    bias = normal.inv_cdf(below)
    deviations = values - mean
    acceleration = (deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5)
    tails = [bias + sign * normal.inv_cdf((1 + confidence) / 2) for sign in (-1, 1)]
    low, high = np.quantile(means, [normal.cdf(bias + tail / (1 - acceleration * tail)) for tail in tails])
    return float(low), float(high)


def effect_size(differences: ArrayLike) -> float:
    """Cohen's d_z: mean over standard deviation of the differences; NaN where that is zero."""
    differences = np.asarray(differences, dtype=float)
    return float(differences.mean() / differences.std(ddof=1)) if _varies(differences) else math.nan


def sign_flip_p(differences: ArrayLike) -> float:
    """Two-sided p-value of the sign-flip test of a mean difference of zero.

    Exact over all 2^n sign assignments up to n = 16, above that over random ones drawn with a
    fixed seed. NaN without differences.
    """
    differences = np.asarray(differences, dtype=float)
    if differences.size == 0:
        return math.nan
    # Sums that are equal but for rounding are ties and count as at least as extreme.
    observed = abs(differences.sum()) - 1e-9 * np.abs(differences).sum()
    if differences.size <= EXACT_PAIRS:
        sums = differences[:1]  # the test is two-sided: the first sign can stay as it is
        for difference in differences[1:]:
            sums = np.concatenate([sums + difference, sums - difference])
        return float(np.mean(np.abs(sums) >= observed))
    count = flips(differences.size)
    signs = np.random.default_rng(0).integers(0, 2, (count, differences.size), dtype=np.int8)
    sums = 2 * (signs @ differences) - differences.sum()
    return float((1 + np.sum(np.abs(sums) >= observed)) / (1 + count))


def permutation_p(values: ArrayLike, others: ArrayLike) -> float:
    """Two-sided p-value of the permutation test of equal means of two groups that are not paired.

    Exact over all ways to choose the first group, up to so many as 16 pairs have signs, above that
    over random ones drawn with a fixed seed. NaN where a group is empty.
    """
    first, second = (np.asarray(group, dtype=float) for group in (values, others))
    if not first.size or not second.size:
        return math.nan
    both = np.concatenate([first, second])
    expected = both.sum() * first.size / both.size  # of the first group's sum, if nothing differs
    observed = abs(first.sum() - expected) - 1e-9 * np.abs(both).sum()
    if math.comb(both.size, first.size) <= 2**EXACT_PAIRS:
        chosen = np.array(list(itertools.combinations(range(both.size), first.size)))
        return float(np.mean(np.abs(both[chosen].sum(axis=1) - expected) >= observed))
    generator = np.random.default_rng(0)
    sums = np.array([generator.permutation(both)[: first.size].sum() for _ in range(RESAMPLES)])
    return float((1 + np.sum(np.abs(sums - expected) >= observed)) / (1 + RESAMPLES))


def power(seeds: int, effect: float, *, paired: bool = True, alpha: float = 1 - CONFIDENCE) -> float:
    """The probability that a two-sided t-test sees a true effect (Cohen 1988, chapter 2).

    Args:
        seeds: pairs, or the runs of each of two groups that are not paired.
        effect: the true difference over the standard deviation: of differences if paired, else of runs.
        paired: whether runs are paired.
        alpha: the level of the test.
    """
    degrees = seeds - 1 if paired else 2 * (seeds - 1)
    if degrees < 1:
        return 0.0
    critical = t_quantile(1 - alpha, degrees)
    centre = abs(effect) * math.sqrt(seeds if paired else seeds / 2)
    if centre > critical + 10:
        return 1.0  # but for 1e-23; scipy's function gives up far out
    return float(1 - nctdtr(degrees, centre, critical) + np.nan_to_num(nctdtr(degrees, centre, -critical)))


def seeds_needed(effect: float, *, paired: bool = True, chance: float = 0.8) -> int | None:
    """The least number of seeds with which `power` reaches `chance`; None above MANY_SEEDS."""
    if not math.isfinite(effect) or power(MANY_SEEDS, effect, paired=paired) < chance:
        return None
    low, high = 1, MANY_SEEDS  # too few, enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle, effect, paired=paired) >= chance else (middle, high)
    return high


def smallest_p(pairs: int) -> float:
    """The smallest p-value that the two-sided sign-flip test can reach with so many pairs."""
    if not pairs:
        return math.nan
    return 2.0 ** (1 - pairs) if pairs <= EXACT_PAIRS else max(2.0 ** (1 - pairs), 1 / (1 + flips(pairs)))


def holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """Holm's step-down correction over all given comparisons.

    A NaN (a comparison that has no pairs yet) stays NaN and still counts as a comparison, so
    that the others do not look better while a study is under way.
    """
    p = np.asarray(p_values, dtype=float)
    filled = np.where(np.isnan(p), 1.0, p)
    order = np.argsort(filled, kind="stable")
    stepped = np.maximum.accumulate(filled[order] * np.arange(p.size, 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1.0)
    return np.where(np.isnan(p), math.nan, corrected)


def flips(pairs: int) -> int:
    """Number of random assignments of signs that are drawn for this many pairs."""
    return min(FLIPS, max(4 * MANY_NUMBERS // pairs, 999))


def _varies(values: NDArray[np.float64]) -> bool:
    """Return True if two values differ by more than rounding."""
    return values.size > 1 and bool(np.ptp(values) > 1e-9 * np.abs(values).max())
