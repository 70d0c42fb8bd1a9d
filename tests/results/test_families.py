"""Simultaneous intervals and sign flips against scipy, brute force and simulation."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from ablate.results import families, statistics

SIZES = [(n, k) for n in (3, 5, 10) for k in (2, 5, 9)]


def layout(n, k, seed=0, noise=1.0):
    """Figures of a baseline and of k conditions by seed, with effects of seeds and conditions."""
    generator = np.random.default_rng(seed)
    table = 80 + generator.normal(0, 2, n) + generator.normal(0, 1, (k + 1, 1))
    table = table + noise * generator.normal(0, 1, (k + 1, n))
    baseline, *others = [dict(enumerate(row.tolist())) for row in table]
    return baseline, others


@pytest.mark.parametrize(("n", "k"), SIZES)
def test_dunnetts_quantile_is_that_of_the_multivariate_t(n, k):
    degrees = k * (n - 1)
    quantile = families.dunnett_quantile(0.95, degrees, families.loadings(n, (n,) * k))
    shape = np.full((k, k), 0.5) + 0.5 * np.eye(k)
    inside = stats.multivariate_t.cdf(
        np.full(k, quantile), shape=shape, df=degrees, lower_limit=np.full(k, -quantile), random_state=0
    )
    assert inside == pytest.approx(0.95, abs=2e-4)  # scipy's integral is a random one


def test_published_quantiles_of_dunnett():
    """Two-sided, 5 %, of Dunnett's table (1964): k and degrees of freedom."""
    for k, degrees, expected in ((2, 10, 2.57), (3, 20, 2.54), (5, 30, 2.66)):
        found = families.dunnett_quantile(0.95, degrees, families.loadings(6, (6,) * k))
        assert round(found, 2) == expected


def test_one_comparison_has_students_quantile():
    for degrees in (1, 2, 9, 200):
        found = families.dunnett_quantile(0.95, degrees, families.loadings(4, (4,)))
        assert found == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-7)


@pytest.mark.parametrize("sizes", [(5, 5, 5, 5), (4, 6, 3), (8, 3, 5, 4, 4)])
def test_unpaired_intervals_are_scipys_dunnett(sizes, monkeypatch):
    monkeypatch.setattr(families, "EQUAL_VARIANCE_LEVEL", 0.0)  # scipy has no such test
    generator = np.random.default_rng(2)
    groups = [generator.normal(80 + place / 2, 1, size) for place, size in enumerate(sizes)]
    baseline, *others = [dict(enumerate(group.tolist())) for group in groups]
    found = families.against_baseline(baseline, others, paired=False)
    expected = stats.dunnett(*groups[1:], control=groups[0], rng=np.random.default_rng(0))
    bounds = expected.confidence_interval(0.95)
    assert found.method == families.DUNNETT
    assert found.degrees == sum(sizes) - len(sizes)
    for (low, high), *scipys in zip(found.intervals, bounds.low, bounds.high, strict=True):
        assert (low, high) == pytest.approx(tuple(scipys), abs=0.02)


def test_the_interval_of_a_single_pair_of_conditions_is_the_paired_one():
    baseline, (other,) = layout(5, 1)
    found = families.against_baseline(baseline, [other])
    differences = [other[seed] - baseline[seed] for seed in baseline]
    assert found.intervals[0] == pytest.approx(statistics.t_interval(differences), rel=1e-6)


def covered(n, k, deviations, draws, seed=0):
    """Share of simulated studies in which all simultaneous intervals cover, and that of the fall-back."""
    generator = np.random.default_rng(seed)
    hits = fallbacks = 0
    for _ in range(draws):
        table = generator.normal(0, 1, (k + 1, n)) * deviations[:, None] + generator.normal(0, 1, n)
        baseline, *others = [dict(enumerate(row.tolist())) for row in table]
        found = families.against_baseline(baseline, others)
        hits += all(low <= 0 <= high for low, high in found.intervals)
        fallbacks += found.method == families.BONFERRONI
    return hits / draws, fallbacks / draws


def vectorised(n, k, deviations):
    """The same, for many draws at once; `test_both_simulations_agree` ties it to `against_baseline`."""
    generator, draws = np.random.default_rng(1), 2_000_000 // (n * (k + 1))
    noise = generator.normal(size=(draws, k + 1, n)) * deviations[:, None]
    figures = noise + generator.normal(size=(draws, 1, n))
    differences = figures[:, 1:] - figures[:, :1]
    means = np.abs(differences.mean(axis=2))
    residuals = figures - figures.mean(axis=2, keepdims=True)
    residuals -= residuals.mean(axis=1, keepdims=True)
    degrees = k * (n - 1)
    scale = np.sqrt((residuals**2).sum(axis=(1, 2)) / degrees)
    quantile = families.dunnett_quantile(0.95, degrees, families.loadings(n, (n,) * k))
    dunnett = (means <= (quantile * scale * math.sqrt(2 / n))[:, None]).all(axis=1)
    errors = differences.std(axis=2, ddof=1) / math.sqrt(n)
    bonferroni = (means <= statistics.t_quantile(1 - 0.05 / k, n - 1) * errors).all(axis=1)
    null = generator.normal(size=(draws, k + 1, n))
    null -= null.mean(axis=2, keepdims=True)
    null -= null.mean(axis=1, keepdims=True)
    sizes = np.full(k + 1, n)
    critical = np.quantile(
        families._bartlett((null**2).sum(axis=2), sizes), 1 - families.EQUAL_VARIANCE_LEVEL
    )
    unequal = families._bartlett((residuals**2).sum(axis=2), sizes) > critical
    return float(np.where(unequal, bonferroni, dunnett).mean()), float(unequal.mean())


def test_both_simulations_agree():
    slow, quick = covered(5, 2, np.array([2.0, 1, 1]), 1000), vectorised(5, 2, np.array([2.0, 1, 1]))
    assert slow == pytest.approx(quick, abs=0.05)  # over three standard errors


@pytest.mark.parametrize(("n", "k"), SIZES)
def test_families_cover_at_their_level(n, k):
    """Nominal − 1 % or more, the choice between the two kinds of intervals included."""
    coverage, fallbacks = vectorised(n, k, np.ones(k + 1))
    assert coverage >= 0.94
    assert fallbacks == pytest.approx(families.EQUAL_VARIANCE_LEVEL, abs=0.02)


@pytest.mark.parametrize(
    ("n", "k", "baseline", "last", "least"),
    [(3, 9, 2, 1, 0.87), (5, 9, 2, 1, 0.88), (10, 9, 2, 1, 0.93), (10, 9, 0.5, 1, 0.95), (10, 9, 1, 3, 0.94)],
)
def test_unequal_noise_costs_coverage_unless_it_is_found(n, k, baseline, last, least):
    """As docs/concepts/report.md says: a baseline with twice the noise is found with ten seeds, not three."""
    deviations = np.array([baseline, *[1.0] * (k - 1), last])
    assert vectorised(n, k, deviations)[0] == pytest.approx(least, abs=0.02)


def test_unequal_noise_and_missing_runs_fall_back_and_say_so():
    baseline, others = layout(8, 4)
    assert families.against_baseline(baseline, others).method == families.DUNNETT
    wide = {seed: value * (1 if seed % 2 else 30) for seed, value in others[0].items()}
    found = families.against_baseline(baseline, [wide, *others[1:]])
    assert found.method == families.BONFERRONI
    assert "noise may not be equally large" in found.reason
    missing = [{seed: value for seed, value in others[0].items() if seed}, *others[1:]]
    found = families.against_baseline(baseline, missing)
    assert "not every condition has a figure of every seed" in found.reason
    differences = [missing[0][seed] - baseline[seed] for seed in missing[0]]
    assert found.intervals[0] == statistics.t_interval(differences, 1 - 0.05 / 4)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("figures", [{}, {0: 80.0}, {0: 80.0, 1: 80.0}, {0: 80.0, 1: 81.0}])
def test_too_few_figures_have_no_interval_and_raise_no_warning(figures, paired):
    found = families.against_baseline({0: 79.0, 1: 79.0}, [figures, {}], paired=paired)
    assert found.size == 2
    assert found.method == families.BONFERRONI
    assert np.isnan(found.intervals[1]).all()
    assert families.against_baseline(figures, [], paired=paired).intervals == ()
    equal = families.against_baseline({0: 79.0, 1: 79.0}, [{0: 80.0, 1: 80.0}] * 2, paired=paired)
    assert "do not vary" in equal.reason


@pytest.mark.parametrize(("n", "k"), [(3, 2), (5, 4), (8, 3)])
def test_max_t_is_every_flip_counted(n, k):
    """Step-down, by the definition: over all 2^n signs of whole seeds."""
    values = np.random.default_rng(n).normal(0.6, 1, (n, k))

    def t(table):
        return np.abs(table.mean(axis=0)) / (table.std(axis=0, ddof=1) / math.sqrt(n))

    observed = t(values)
    order = np.argsort(-observed)
    flips = [t(np.array(signs)[:, None] * values) for signs in itertools.product((1, -1), repeat=n)]
    expected, least = np.empty(k), 0.0
    for place, comparison in enumerate(order):
        at_least = [flip[order[place:]].max() >= observed[comparison] - 1e-9 for flip in flips]
        expected[comparison] = least = max(least, np.mean(at_least))
    found = families.max_t_p([dict(enumerate(column)) for column in values.T.tolist()])
    assert found == pytest.approx(expected)


def test_max_t_of_one_comparison_is_the_sign_flip_test():
    for n in (1, 3, 6, 20):
        values = np.random.default_rng(n).normal(0.5, 1, n)
        found = families.max_t_p([dict(enumerate(values.tolist()))])[0]
        expected = statistics.sign_flip_p(values) if n > 1 else 1.0
        assert found == pytest.approx(expected, abs=0 if n <= 16 else 0.004)


def test_max_t_keeps_the_level_of_the_family_and_is_no_larger_than_holm():
    """Correlated comparisons without differences: the smallest p is below 5 % five times in a hundred."""
    generator, below = np.random.default_rng(0), 0
    for _ in range(400):
        values = generator.normal(0, 1, (8, 4)) - generator.normal(0, 1, (8, 1))
        columns = [dict(enumerate(column)) for column in values.T.tolist()]
        below += families.max_t_p(columns).min() < 0.05
    assert below / 400 == pytest.approx(0.05, abs=0.03)
    values = generator.normal(1.5, 1, (8, 4)) - generator.normal(0, 0.5, (8, 1))
    holm = statistics.holm([statistics.sign_flip_p(column) for column in values.T])
    assert (families.max_t_p([dict(enumerate(column)) for column in values.T.tolist()]) <= holm + 1e-9).all()


def test_max_t_of_comparisons_with_missing_seeds():
    found = families.max_t_p([{0: 1.0, 1: 1.1, 2: 0.9, 3: 1.2}, {0: 0.5}, {}, {1: 0.0, 2: 0.0}])
    assert found == pytest.approx([2 / 16, 1.0, math.nan, 1.0], nan_ok=True)
