"""Equivalence of a mean difference and zero within a margin: two one-sided t-tests (Schuirmann 1987).

The two tests at 5 % reject exactly when the 90 % t interval lies inside ±margin. Power is exact: the mean
and the standard deviation of normal differences are independent, so that it is one integral over the
distribution of the standard deviation. It gives the published figures of R's PowerTOST.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, ndtr, stdtr

from ablate.results.statistics import MANY_SEEDS, Interval, t_quantile

ALPHA = 0.05  # of each of the two tests
CONFIDENCE = 1 - 2 * ALPHA  # of the interval that says the same
NODES = 200  # of the integral: its error is below 1e-10


def within(interval: Interval, margin: float) -> bool:
    """Return True if an interval lies inside ±margin; False where either is missing."""
    low, high = interval
    return bool(-margin < low and high < margin)


def tost_p(difference: float, standard_error: float, degrees: float, margin: float) -> float:
    """The larger p-value of the two one-sided t-tests against −margin and +margin; NaN if there is none."""
    if not all(map(math.isfinite, (difference, standard_error, degrees, margin))) or standard_error <= 0:
        return math.nan
    return float(stdtr(degrees, (abs(difference) - margin) / standard_error))


def power(margin: float, standard_error: float, degrees: float, difference: float = 0.0) -> float:
    """The probability that two one-sided t-tests at 5 % show equivalence within ±margin.

    Args:
        margin: in the unit of the difference.
        standard_error: true standard error of the estimated difference.
        degrees: degrees of freedom of its estimate.
        difference: true difference.
    """
    if degrees < 1 or not standard_error > 0:
        return 0.0
    # The interval's half-width must stay below the margin: scale · t · se < margin.
    widest = margin / (t_quantile(CONFIDENCE, degrees) * standard_error)
    scales, weights = nodes_of_scale(degrees, widest)
    room = margin / standard_error - t_quantile(CONFIDENCE, degrees) * scales
    middle = difference / standard_error
    return float(weights @ (ndtr(room - middle) - ndtr(-room - middle)))


def seeds_needed(
    margin: float, sd: float, *, difference: float = 0.0, paired: bool = True, chance: float = 0.8
) -> int | None:
    """The least number of seeds with which `power` reaches `chance`; None above MANY_SEEDS.

    Args:
        margin: in the unit of the difference.
        sd: standard deviation of differences if paired, else of the runs of a condition.
        difference: true difference.
        paired: whether runs are paired.
        chance: the power to reach.
    """

    def reached(seeds: int) -> bool:
        degrees = seeds - 1 if paired else 2 * (seeds - 1)
        error = sd * math.sqrt((1 if paired else 2) / seeds)
        return power(margin, error, degrees, difference) >= chance

    known = math.isfinite(margin) and math.isfinite(sd) and sd > 0 and math.isfinite(difference)
    if not known or abs(difference) >= margin or not reached(MANY_SEEDS):
        return None
    low, high = 1, MANY_SEEDS  # too few, enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def nodes_of_scale(degrees: float, most: float = math.inf) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights to integrate over s = √(χ²/degrees) up to `most`.

    s is the estimated over the true standard deviation. The nodes are Gauss-Legendre, over the range that has
    all but 1e-14 of the probability.
    """
    x, w = legendre(NODES)
    spread = 9 / math.sqrt(2 * degrees)
    low, high = max(1 - spread, 0.0), min(1 + spread, most)
    if high <= low:
        return np.array([]), np.array([])
    s = low + (high - low) * (x + 1) / 2
    log_density = (
        math.log(2)
        + degrees / 2 * math.log(degrees / 2)
        - gammaln(degrees / 2)
        + (degrees - 1) * np.log(s)
        - degrees * s**2 / 2
    )
    return s, w * (high - low) / 2 * np.exp(log_density)


@lru_cache
def legendre(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gauss-Legendre nodes and weights on [−1, 1]."""
    x, w = np.polynomial.legendre.leggauss(count)
    return x, w
