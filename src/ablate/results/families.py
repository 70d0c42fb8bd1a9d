"""Simultaneous inference for all comparisons of a study with its baseline, on plain arrays.

Runs form a two-way layout, seed + condition: a figure is the effect of its seed, plus that of its condition,
plus noise. Where every condition has every seed, the noise is estimated from all runs (pooled residual), the
differences from the baseline share the baseline's noise, and any two of them have the correlation 1/2. All
differences lie in their intervals at once with 95 % probability (Dunnett 1955). Without pairs the layout
is one-way, and the correlations result from the sizes of the groups.

The layout supposes that noise is equally large in all conditions. Where a test finds that it is not, or a run
is missing, each difference has a t interval of its own instead, with Bonferroni's correction.

`max_t_p` is the counterpart that supposes no distribution: step-down max-|t| over sign flips (Westfall and
Young 1993).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from ablate.results import statistics
from ablate.results.equivalence import legendre, nodes_of_scale
from ablate.results.statistics import CONFIDENCE, EXACT_PAIRS, NO_INTERVAL, Interval

Array = NDArray[np.float64]
Figures = Mapping[int, float]  # of one condition, by seed

# A missed inequality costs coverage, a false alarm only width: hence not 0.05.
EQUAL_VARIANCE_LEVEL = 0.2
DRAWS = 1999  # of the test of equal variance
CHUNK = 2_000_000  # numbers that are held at a time
REACH = 8.5  # of the normal integral: what is beyond has a probability below 1e-16
NODES = 120

DUNNETT, BONFERRONI = "Dunnett", "Bonferroni"


@dataclass(frozen=True)
class Family:
    """All comparisons with the baseline, and how their simultaneous intervals were computed.

    Attributes:
        size: number of comparisons, those without a pair included.
        method: DUNNETT or BONFERRONI.
        reason: the reason for Bonferroni's correction; empty for Dunnett's intervals.
        degrees: degrees of freedom of the pooled residual; NaN with Bonferroni's correction.
        equal_variance_p: of the test of equal variance; NaN where there is nothing to test.
        intervals: one per comparison.
    """

    size: int
    method: str
    reason: str
    degrees: float
    equal_variance_p: float
    intervals: tuple[Interval, ...]


def against_baseline(
    baseline: Figures, others: Sequence[Figures], *, paired: bool = True, confidence: float = CONFIDENCE
) -> Family:
    """Simultaneous intervals of the mean differences from the baseline.

    Args:
        baseline: its figures by seed.
        others: those of every other condition.
        paired: whether figures of one seed belong together.
        confidence: probability that all intervals cover at once.
    """
    if not others:
        return Family(0, DUNNETT, "", math.nan, math.nan, ())
    found, reason, p = layout(baseline, others, paired=paired)
    if found is not None:
        sizes = tuple(len(each) for each in others)
        quantile = dunnett_quantile(confidence, found.degrees, loadings(len(baseline), sizes))
        half = quantile * found.scale * found.errors
        bounds = tuple(zip((found.centre - half).tolist(), (found.centre + half).tolist(), strict=True))
        return Family(len(others), DUNNETT, "", found.degrees, p, bounds)
    corrected = 1 - (1 - confidence) / len(others)
    intervals = tuple(own_interval(each, baseline, paired, corrected) for each in others)
    return Family(len(others), BONFERRONI, reason, math.nan, p, intervals)


@dataclass(frozen=True)
class Layout:
    """Runs of a study as a layout with equal noise.

    Attributes:
        scale: standard deviation of the noise, pooled over all conditions.
        degrees: degrees of freedom of it.
        centre: mean of every other condition less the baseline's.
        errors: standard errors of these, over `scale`.
    """

    scale: float
    degrees: float
    centre: Array
    errors: Array


def layout(baseline: Figures, others: Sequence[Figures], *, paired: bool) -> tuple[Layout | None, str, float]:
    """Return the layout of conditions; None where it cannot be used, with the reason.

    The third is the p-value of the test of equal variance, NaN where there is nothing to test.
    """
    reason = (_incomplete if paired else _too_small)(baseline, others)
    if reason:
        return None, reason, math.nan
    residuals, centre, errors, degrees = (_two_way if paired else _one_way)(baseline, others)
    p = equal_variance_p(residuals, paired=paired) if len(others) > 1 or not paired else math.nan
    if p < EQUAL_VARIANCE_LEVEL:
        level = f"(p = {p:.3f}, below {EQUAL_VARIANCE_LEVEL:g})"
        return None, f"noise may not be equally large in all conditions {level}", p
    scale = math.sqrt(sum(float((each**2).sum()) for each in residuals) / degrees)
    if scale <= 1e-9 * max(abs(value) for value in baseline.values()):
        return None, "the figures do not vary over seeds", p
    return Layout(scale, degrees, centre, errors), "", p


def loadings(baseline: int, others: Sequence[int]) -> tuple[float, ...]:
    """λ of every comparison with a baseline of so many runs: two comparisons have the correlation λᵢλⱼ."""
    return tuple(math.sqrt(size / (size + baseline)) for size in others)


@lru_cache
def dunnett_quantile(confidence: float, degrees: float, loadings: tuple[float, ...]) -> float:
    """The t that all |Tᵢ| stay below with this probability (two-sided Dunnett).

    T is a multivariate t vector with so many degrees of freedom and correlations λᵢλⱼ: given the scale s and
    the baseline's standardised mean z, its elements are independent, so that two integrals remain. The
    result does not depend on random numbers.
    """
    s, s_weights = nodes_of_scale(degrees)
    x, w = legendre(NODES)
    z, z_weights = REACH * x, REACH * w * np.exp(-((REACH * x) ** 2) / 2) / math.sqrt(2 * math.pi)
    counted = [(value, loadings.count(value)) for value in sorted(set(loadings))]

    def coverage(t: float) -> float:
        inside = np.ones((s.size, z.size))
        for loading, count in counted:
            own = math.sqrt(1 - loading**2)
            middle, reach = loading * z / own, (t * s / own)[:, None]
            inside *= (ndtr(middle + reach) - ndtr(middle - reach)) ** count
        return float(s_weights @ inside @ z_weights)

    low = statistics.t_quantile(confidence, degrees)
    high = statistics.t_quantile(1 - (1 - confidence) / len(loadings), degrees)  # Bonferroni's
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if coverage(middle) < confidence else (low, middle)
    return (low + high) / 2


def equal_variance_p(residuals: Sequence[Array], *, paired: bool = True) -> float:
    """p-value of Bartlett's statistic of the residuals by condition, against simulated normal noise.

    Residuals of a layout are neither independent nor many, so that the statistic is compared with what it is
    under equal variance in the same layout: drawn with a fixed seed, exact but for the number of draws.

    Args:
        residuals: of each condition; paired, in the order of the seeds.
        paired: whether seeds have effects of their own.
    """
    sizes = np.array([each.size for each in residuals])
    observed = _bartlett(np.array([(each**2).sum() for each in residuals])[None], sizes)[0]
    if not math.isfinite(observed):
        return math.nan
    generator, beyond, left = np.random.default_rng(0), 0, DRAWS
    while left:
        draws = min(left, max(CHUNK // int(sizes.sum()), 1))
        left -= draws
        groups = [generator.standard_normal((draws, size)) for size in sizes]
        groups = [group - group.mean(axis=1, keepdims=True) for group in groups]
        if paired:
            shared = sum(groups) / len(groups)
            groups = [group - shared for group in groups]
        squares = np.stack([(group**2).sum(axis=1) for group in groups], axis=1)
        beyond += int(np.sum(_bartlett(squares, sizes) >= observed - 1e-9))
    return (1 + beyond) / (1 + DRAWS)


def max_t_p(differences: Sequence[Mapping[int, float]]) -> NDArray[np.float64]:
    """p-values of all comparisons by step-down max-|t| over sign flips (Westfall and Young 1993).

    A flip changes the sign of a seed's differences in all comparisons alike, so that their dependence is
    kept. Exact over all 2^n signs up to n = 16 seeds, above that over random ones drawn with a fixed seed.
    NaN for a comparison without differences; one with a single difference has no t and 1.
    """
    seeds = sorted({seed for each in differences for seed in each})
    sizes = np.array([len(each) for each in differences])
    if not seeds:
        return np.full(len(differences), math.nan)
    places = {seed: place for place, seed in enumerate(seeds)}
    table = np.zeros((len(seeds), len(differences)))
    for column, each in enumerate(differences):
        for seed, value in each.items():
            table[places[seed], column] = value
    squares = (table**2).sum(axis=0)

    def statistic(sums: Array) -> Array:
        """t²/(t² + c), which rises with |t| and is finite where all differences are equal."""
        share = sums**2 / np.where(squares > 0, sizes * squares, 1.0)  # t² = (n − 1) share / (1 − share)
        t_squared = (sizes - 1) * share
        return np.divide(
            t_squared,
            t_squared + (sizes.max() - 1) * np.maximum(1 - share, 0.0),
            out=np.zeros_like(share),
            where=(sizes > 1) & (t_squared > 0),
        )

    observed = statistic(table.sum(axis=0)[None])[0]
    order = np.argsort(-observed, kind="stable")
    counts, total = np.zeros(len(differences)), 0
    for signs in _signs(len(seeds), len(differences)):
        flipped = statistic(signs @ table)[:, order]
        largest = np.maximum.accumulate(flipped[:, ::-1], axis=1)[:, ::-1]  # over those not yet passed
        counts += (largest >= observed[order] - 1e-9).sum(axis=0)
        total += len(signs)
    exact = len(seeds) <= EXACT_PAIRS
    stepped = np.maximum.accumulate(counts / total if exact else (1 + counts) / (1 + total))
    p = np.empty(len(differences))
    p[order] = stepped
    return np.where(sizes > 0, p, math.nan)


def _signs(seeds: int, comparisons: int) -> Iterator[Array]:
    """Assignments of signs, in chunks; the last of the exact ones is +1, for the tests are two-sided."""
    rows = max(CHUNK // max(comparisons, seeds), 1)
    if seeds <= EXACT_PAIRS:
        whole = np.arange(2 ** (seeds - 1))
        signs = np.where((whole[:, None] >> np.arange(seeds)) & 1, -1.0, 1.0)
        for start in range(0, len(signs), rows):
            yield signs[start : start + rows]
        return
    generator, count = np.random.default_rng(0), statistics.flips(seeds)
    for start in range(0, count, rows):
        drawn = generator.integers(0, 2, (min(rows, count - start), seeds), dtype=np.int8)
        yield np.where(drawn == 1, -1.0, 1.0)


def _bartlett(squares: Array, sizes: NDArray[np.int_]) -> Array:
    """Bartlett's statistic without its constants, from sums of squares; one row per draw."""
    weights = np.maximum(sizes - 1, 0)
    variances = squares / np.maximum(weights, 1)
    pooled = (squares.sum(axis=1) / weights.sum())[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.maximum(variances / pooled, 1e-12))
        return -(weights * logs).sum(axis=1) / weights.sum()


def _two_way(baseline: Figures, others: Sequence[Figures]) -> tuple[list[Array], Array, Array, float]:
    """Residuals by condition, differences, their errors over the noise, and degrees of freedom."""
    seeds = sorted(baseline)
    table = np.array([[each[seed] for seed in seeds] for each in (baseline, *others)])
    means = table.mean(axis=1)
    residuals = table - means[:, None] - (table - means[:, None]).mean(axis=0)
    errors = np.full(len(others), math.sqrt(2 / len(seeds)))
    return (
        [np.asarray(row) for row in residuals],
        means[1:] - means[0],
        errors,
        float(len(others) * (len(seeds) - 1)),
    )


def _one_way(baseline: Figures, others: Sequence[Figures]) -> tuple[list[Array], Array, Array, float]:
    groups = [np.array(list(each.values()), dtype=np.float64) for each in (baseline, *others)]
    means = np.array([group.mean() for group in groups])
    residuals = [group - mean for group, mean in zip(groups, means, strict=True)]
    errors = np.array([math.sqrt(1 / group.size + 1 / groups[0].size) for group in groups[1:]])
    return residuals, means[1:] - means[0], errors, float(sum(group.size - 1 for group in groups))


def _incomplete(baseline: Figures, others: Sequence[Figures]) -> str:
    """The reason why runs form no complete two-way layout, or an empty string."""
    if any(each.keys() != baseline.keys() for each in others):
        return "not every condition has a figure of every seed"
    return "" if len(baseline) > 1 else "there are fewer than two seeds"


def _too_small(baseline: Figures, others: Sequence[Figures]) -> str:
    few = min(map(len, (baseline, *others))) < 2
    return "a condition has fewer than two runs" if few else ""


def own_interval(figures: Figures, baseline: Figures, paired: bool, confidence: float) -> Interval:
    """Return the t interval of one difference by itself; unpaired, Welch's."""
    if not paired:
        if not figures or not baseline:
            return NO_INTERVAL
        return statistics.welch_interval(list(figures.values()), list(baseline.values()), confidence)
    differences = [value - baseline[seed] for seed, value in figures.items() if seed in baseline]
    return statistics.t_interval(differences, confidence)
