"""Two one-sided tests against statsmodels, simulation and R's PowerTOST."""

import math

import numpy as np
import pytest
from statsmodels.stats.weightstats import ttost_ind, ttost_paired

from ablate.results import equivalence, statistics


def differences(n, seed=0):
    return np.random.default_rng(seed).normal(0.2, 0.6, n)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 30])
@pytest.mark.parametrize("margin", [0.1, 0.5, 1.0, 2.0])
def test_p_and_decision_are_those_of_statsmodels(n, margin):
    for seed in range(20):
        values = differences(n, seed)
        expected = ttost_paired(values, np.zeros(n), -margin, margin)[0]
        error = statistics.standard_error(values)
        p = equivalence.tost_p(values.mean(), error, n - 1, margin)
        assert p == pytest.approx(expected, rel=1e-9, abs=1e-12)
        interval = statistics.t_interval(values, equivalence.CONFIDENCE)
        assert equivalence.within(interval, margin) == (expected < equivalence.ALPHA)


def test_unpaired_p_is_statsmodels():
    ours, theirs = differences(5, 1), differences(8, 2)
    error, degrees = statistics.welch_error(ours, theirs)
    expected = ttost_ind(ours, theirs, -0.7, 0.7, usevar="unequal")[0]
    assert equivalence.tost_p(ours.mean() - theirs.mean(), error, degrees, 0.7) == pytest.approx(expected)


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize(("margin", "true"), [(1.0, 0.0), (1.5, 0.0), (2.0, 1.0), (2.0, 2.0)])
def test_power_is_that_of_simulated_tests(n, margin, true):
    """A hundred thousand draws; at a true difference of the margin it is the level, at most 5 %."""
    values = np.random.default_rng(0).normal(true, 1, (100_000, n))
    error = values.std(axis=1, ddof=1) / math.sqrt(n)
    half = statistics.t_quantile(equivalence.CONFIDENCE, n - 1) * error
    seen = np.mean((values.mean(axis=1) + half < margin) & (values.mean(axis=1) - half > -margin))
    power = equivalence.power(margin, 1 / math.sqrt(n), n - 1, true)
    assert power == pytest.approx(seen, abs=0.005)
    if true == margin:
        assert power <= equivalence.ALPHA + 1e-9


def test_power_is_powertosts():
    """`power.TOST(CV = 0.3, n = 40)`: a 2×2 crossover with true ratio 0.95 and limits 0.8 and 1.25."""
    sd = math.sqrt(math.log(1 + 0.3**2))
    power = equivalence.power(math.log(1.25), sd * math.sqrt(2 / 40), 38, math.log(0.95))
    assert power == pytest.approx(0.8158453, abs=5e-8)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("true", [0.0, 0.3])
def test_seeds_needed_are_the_fewest(paired, true):
    def power(seeds):
        error = 0.8 * math.sqrt((1 if paired else 2) / seeds)
        return equivalence.power(0.5, error, seeds - 1 if paired else 2 * (seeds - 1), true)

    needed = equivalence.seeds_needed(0.5, 0.8, difference=true, paired=paired)
    assert power(needed) >= 0.8 > power(needed - 1)


@pytest.mark.parametrize(
    ("margin", "sd", "true"), [(math.nan, 1, 0), (0.5, math.nan, 0), (0.5, 0, 0), (0.5, 1, 0.5), (1e-9, 1, 0)]
)
def test_no_number_of_seeds_shows_what_cannot_be_shown(margin, sd, true):
    assert equivalence.seeds_needed(margin, sd, difference=true) is None


def test_what_is_missing_is_not_equivalent():
    assert not equivalence.within(statistics.NO_INTERVAL, 1.0)
    assert not equivalence.within((-0.1, 0.1), math.nan)
    assert math.isnan(equivalence.tost_p(0.1, math.nan, 4, 1.0))
    assert equivalence.power(1.0, 0.1, 0) == 0
