"""Our statistics against scipy, statsmodels, brute force and simulation."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats import power as reference_power
from statsmodels.stats.multitest import multipletests

from ablate.results import statistics


def differences(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.5, 1.0, n)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 10, 31])
def test_t_interval_is_scipys(n):
    expected = stats.ttest_1samp(differences(n), 0).confidence_interval(0.95)
    assert statistics.t_interval(differences(n)) == pytest.approx(tuple(expected), rel=1e-12)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_bca_interval_is_scipys(n):
    values = differences(n)
    expected = stats.bootstrap((values,), np.mean, method="BCa", rng=np.random.default_rng(0))
    assert statistics.bca_interval(values) == pytest.approx(tuple(expected.confidence_interval))


@pytest.mark.parametrize("n", [1, 2, 3, 6, 9])
def test_sign_flip_p_counts_every_assignment_of_signs(n):
    values = differences(n)
    sums = [abs(np.dot(signs, values)) for signs in itertools.product((-1, 1), repeat=n)]
    assert statistics.sign_flip_p(values) == np.mean(np.array(sums) >= abs(values.sum()) - 1e-12)


@pytest.mark.parametrize("n", [5, 16, 20])
def test_sign_flip_p_is_scipys(n):
    values = differences(n)
    expected = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=2**17, rng=np.random.default_rng(1)
    )
    # scipy counts up to 2^17 assignments; we draw from 17 on
    assert statistics.sign_flip_p(values) == pytest.approx(expected.pvalue, abs=0 if n <= 16 else 0.004)


def test_sign_flip_p_reaches_its_least_and_no_less():
    for n in (1, 3, 5, 16):
        assert statistics.sign_flip_p(np.arange(1, n + 1)) == statistics.smallest_p(n)
    assert statistics.sign_flip_p(np.ones(30)) == statistics.smallest_p(30)


def test_ties_but_for_rounding_count():
    # 0.1 + 0.2 − 0.3 is not zero in floating point
    assert statistics.sign_flip_p([0.1, 0.2, -0.3]) == 1.0


def test_holm_is_statsmodels():
    p = np.random.default_rng(0).uniform(0, 0.2, 9)
    assert statistics.holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_holm_counts_a_comparison_that_has_no_pairs_yet():
    corrected = statistics.holm([0.01, math.nan, 0.04])
    assert corrected == pytest.approx([0.03, math.nan, 0.08], nan_ok=True)


@pytest.mark.parametrize("values", [[], [0.3], [0.1, 0.1, 0.1], [84.2 - 84.1, 0.1, 0.1]])
def test_no_spread_gives_no_interval_and_no_effect_size(values):
    assert np.isnan(statistics.t_interval(values)).all()
    assert np.isnan(statistics.bca_interval(values)).all()
    assert math.isnan(statistics.effect_size(values))


@pytest.mark.filterwarnings("error")
def test_two_values_and_extreme_skew_raise_no_warning():
    assert np.isnan(statistics.bca_interval([0.1, 0.2])).all()
    low, high = statistics.bca_interval([0.0, 0.0, 0.0, 0.0, 100.0])
    assert low <= high


def test_with_three_pairs_the_t_interval_covers_and_the_bootstrap_does_not():
    generator = np.random.default_rng(0)
    samples = generator.normal(0, 1, (1000, 3))
    t, bca = (
        np.mean([low <= 0 <= high for low, high in map(interval, samples)])
        for interval in (statistics.t_interval, lambda values: statistics.bca_interval(values, resamples=999))
    )
    assert t == pytest.approx(0.95, abs=0.02)
    assert bca == pytest.approx(0.72, abs=0.04)


def test_over_a_thousand_draws_intervals_cover_and_p_values_are_uniform_under_the_null():
    """Eight pairs whose true difference is 0.7 standard deviations, and the same without it."""
    samples = np.random.default_rng(1).normal(0.7, 1, (1000, 8))
    covered = np.mean([low <= 0.7 <= high for low, high in map(statistics.t_interval, samples)])
    assert covered == pytest.approx(0.95, abs=0.02)
    p = np.array([statistics.sign_flip_p(sample - 0.7) for sample in samples])
    for level in (1 / 128, 0.0625, 0.25, 0.5, 0.75):  # levels that eight pairs can reach
        assert np.mean(p <= level) == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / 1000))
    seen = np.mean([statistics.sign_flip_p(sample) < 0.05 for sample in samples])
    assert seen == pytest.approx(statistics.power(8, 0.7), abs=0.06)  # the t-test's, which is close


@pytest.mark.parametrize("sizes", [(2, 2), (5, 5), (4, 9)])
def test_two_groups_that_are_not_paired_are_scipys(sizes):
    generator = np.random.default_rng(2)
    first, second = generator.normal(1, 1, sizes[0]), generator.normal(0, 2, sizes[1])
    welch = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert statistics.welch_interval(first, second) == pytest.approx(tuple(welch), rel=1e-9)
    both = np.concatenate([first, second])
    chosen = np.array(list(itertools.combinations(range(both.size), first.size)))
    means = both[chosen].mean(axis=1)
    apart = np.abs(means - (both.sum() - means * first.size) / second.size)
    expected = np.mean(apart >= abs(first.mean() - second.mean()) - 1e-12)
    assert statistics.permutation_p(first, second) == pytest.approx(expected)


@pytest.mark.parametrize("effect", [0.2, 0.8, -1.5])
@pytest.mark.parametrize("paired", [True, False])
def test_power_is_statsmodels(effect, paired):
    test = reference_power.TTestPower() if paired else reference_power.TTestIndPower()
    for seeds in (2, 5, 30):
        arguments = {"nobs": seeds} if paired else {"nobs1": seeds}
        expected = test.power(effect_size=effect, alpha=0.05, **arguments)
        assert statistics.power(seeds, effect, paired=paired) == pytest.approx(expected, abs=1e-6)
    needed = statistics.seeds_needed(effect, paired=paired)
    assert statistics.power(needed, effect, paired=paired) >= 0.8
    assert statistics.power(needed - 1, effect, paired=paired) < 0.8


def test_no_number_of_seeds_shows_no_difference():
    assert statistics.seeds_needed(0.0) is None
    assert statistics.seeds_needed(math.nan) is None
