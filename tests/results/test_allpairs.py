"""All pairs of conditions as one family: judged by R and SciPy, and by what letters have to mean."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ablate.results import allpairs, families


def test_the_quantile_is_that_of_rs_tukeyhsd_of_warpbreaks() -> None:
    """help(TukeyHSD): three tensions of 18 looms, 50 degrees of freedom, residual sum of squares 6747.9."""
    half = allpairs.range_quantile(0.95, 3, 50) * math.sqrt(6747.9 / 50 / 18)
    assert -10 - half == pytest.approx(-19.35342, abs=2e-4)
    assert -10 + half == pytest.approx(-0.6465793, abs=2e-4)


def test_without_pairs_intervals_are_scipys_also_for_unequal_groups() -> None:
    generator = np.random.default_rng(4)
    groups = {
        name: dict(enumerate(generator.normal(mean, 1, n)))
        for name, mean, n in (("a", 0, 7), ("b", 1, 5), ("c", 3, 6))
    }
    found = allpairs.compare(groups, paired=False)
    assert found is not None
    assert found.method == allpairs.TUKEY
    judge = stats.tukey_hsd(*(list(group.values()) for group in groups.values())).confidence_interval()
    places = list(groups)
    for pair in found.pairs:
        row, column = places.index(pair.first), places.index(pair.second)
        assert pair.interval == pytest.approx((judge.low[row, column], judge.high[row, column]), abs=1e-3)


@given(
    st.integers(1, 9).flatmap(
        lambda size: st.tuples(st.just(size), st.sets(st.sampled_from(list(combinations(range(9), 2)))))
    )
)
def test_two_share_a_letter_exactly_if_they_do_not_differ(drawn: tuple[int, set[tuple[int, int]]]) -> None:
    size, pairs = drawn
    names = [str(number) for number in range(size)]
    different = {(str(one), str(other)) for one, other in pairs if other < size}
    found = allpairs.letters(names, sorted(different))
    for pair in combinations(names, 2):
        assert bool(set(found[pair[0]]) & set(found[pair[1]])) == (pair not in different)
    assert "a" in found["0"]


@pytest.mark.parametrize("conditions", [3, 5, 9])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_all_intervals_cover_at_once_as_often_as_they_say(conditions: int, seeds: int) -> None:
    draws = 4000
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 1, (draws, conditions, seeds))
    means = noise.mean(2)
    residuals = noise - means[:, :, None] - noise.mean(1)[:, None] + noise.mean((1, 2))[:, None, None]
    scale = np.sqrt((residuals**2).sum((1, 2)) / ((conditions - 1) * (seeds - 1)))
    half = (
        allpairs.range_quantile(0.95, conditions, (conditions - 1) * (seeds - 1)) * scale / math.sqrt(seeds)
    )
    covered = np.mean(np.ptp(means, axis=1) <= half)
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / draws)
    one = {str(name): dict(enumerate(row)) for name, row in enumerate(noise[0])}
    assert families.layout(one["0"], list(one.values())[1:], paired=True)[2] >= 0
    found = allpairs.compare(one)
    assert found is not None
    if found.method == allpairs.TUKEY:
        assert np.ptp(found.pairs[0].interval) / 2 == pytest.approx(half[0])


def test_unequal_noise_and_missing_runs_have_bonferronis_correction() -> None:
    generator = np.random.default_rng(0)
    shared = generator.normal(0, 1, 6)
    figures = {
        name: dict(enumerate(mean + shared + generator.normal(0, sd, 6)))
        for name, mean, sd in (("a", 0, 0.01), ("b", 4, 0.01), ("c", 4, 3))
    }
    found = allpairs.compare(figures)
    assert found is not None
    assert found.method == families.BONFERRONI
    assert "noise" in found.reason
    assert not set(found.letters["a"]) & set(found.letters["b"])
    del figures["c"][0]
    missing = allpairs.compare(figures)
    assert missing is not None
    assert "every seed" in missing.reason
    (pair,) = (pair for pair in missing.pairs if (pair.first, pair.second) == ("a", "c"))
    kept = [figures["a"][seed] - figures["c"][seed] for seed in figures["c"]]
    expected = stats.t.interval(1 - 0.05 / 3, 4, np.mean(kept), stats.sem(kept))
    assert pair.interval == pytest.approx(expected)
    assert allpairs.compare({"a": {0: 1.0}, "b": {0: 2.0}}) is None
    assert allpairs.letters(["best", "worst"], [("best", "worst")]) == {"best": "a", "worst": "b"}
