"""Factorial analysis against statsmodels, known effects and designs with holes."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from statsmodels.formula.api import ols

from ablate.results import factorial
from ablate.store.manifest import Manifest

LEVELS = {"op": ("lsa", "filter"), "op.channel.heads": ("1", "1x", "C"), "op/channel": ("plain", "ghost")}
EFFECT = {"filter": 4.0, "1x": 0.5, "C": -1.0, "ghost": 2.0}  # against the first levels
TOGETHER = {("filter", "ghost"): -1.5}


def study(seeds=5, noise=0.5, seed=0):
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(seeds):
        shared = generator.normal(0, 3)
        for cell in itertools.product(*LEVELS.values()):
            truth = 70 + sum(EFFECT.get(level, 0) for level in cell)
            truth += sum(change for both, change in TOGETHER.items() if {*both} <= {*cell})
            rows.append((*cell, number, "finished", truth + shared + generator.normal(0, noise)))
    frame = pd.DataFrame(rows, columns=[*LEVELS, "seed", "state", "test_top1"])
    return Manifest("study", factors=list(LEVELS), baseline={"op": "lsa"}), frame


def level(found, name):
    return next(each for each in found.marginal if each.level == name)


def test_effects_are_found_and_what_seeds_share_drops_out():
    found = factorial.analyse(*study(noise=1e-6))
    assert level(found, "1x").difference == pytest.approx(0.5, abs=1e-5)
    assert level(found, "ghost").difference == pytest.approx(2.0 - 0.75, abs=1e-5)  # averaged over op
    (together,) = (each for each in found.interactions if each.levels == ("filter", "ghost"))
    assert together.difference == pytest.approx(-1.5, abs=1e-5)
    others = [each.difference for each in found.interactions if each is not together]
    assert others == pytest.approx([0] * len(others), abs=1e-5)
    assert math.isnan(level(found, "lsa").difference)
    assert found.absent == () and found.left_out == ()


def test_the_intervals_of_main_effects_and_interactions_cover():
    hits = []
    for seed in range(150):
        found = factorial.analyse(*study(seed=seed))
        low, high = level(found, "C").difference_interval
        hits.append(low <= -1.0 <= high)
        low, high = next(each.interval for each in found.interactions if each.levels == ("filter", "ghost"))
        hits.append(low <= -1.5 <= high)
    assert np.mean(hits) == pytest.approx(0.95, abs=0.035)


@pytest.mark.parametrize("holes", [[], [3]])
def test_sums_of_squares_are_statsmodels_type_two(holes):
    _, runs = study()
    cells = list(itertools.product(*LEVELS.values()))
    figures = runs["test_top1"].to_numpy().reshape(5, len(cells))
    kept = [index for index in range(len(cells)) if index not in holes]
    shares = factorial.shares(LEVELS, [cells[index] for index in kept], figures[:, kept])
    frame = runs[np.isin(np.arange(len(runs)) % len(cells), kept)].rename(
        columns={"op.channel.heads": "heads", "op/channel": "ghost"}
    )
    model = ols("test_top1 ~ C(seed) + op + heads + ghost + op:heads + op:ghost + heads:ghost", frame).fit()
    expected = sm.stats.anova_lm(model, typ=2)
    assert [each.sum_of_squares for each in shares] == pytest.approx(
        expected["sum_sq"].tolist(), rel=1e-6, abs=1e-9
    )
    assert [each.degrees for each in shares] == expected["df"].tolist()
    if not holes:
        assert sum(each.share for each in shares) == pytest.approx(1)


def test_a_cell_that_is_missing_is_expected_by_an_additive_model_and_said():
    manifest, runs = study(noise=1e-6)
    together, TOGETHER["filter", "ghost"] = TOGETHER["filter", "ghost"], 0.0
    try:
        manifest, runs = study(noise=1e-6)
    finally:
        TOGETHER["filter", "ghost"] = together
    hole = (runs["op"] == "filter") & (runs["op.channel.heads"] == "C") & (runs["op/channel"] == "ghost")
    found = factorial.analyse(manifest, runs[~hole])
    assert found.absent == (("filter", "C", "ghost"),)
    assert level(found, "C").difference == pytest.approx(-1.0, abs=1e-5)
    assert level(found, "filter").difference == pytest.approx(4.0, abs=1e-5)


def test_a_seed_with_a_failed_run_is_left_out_and_a_cell_without_runs_is_absent():
    manifest, runs = study()
    runs.loc[runs.index[3], "state"] = "failed"
    runs.loc[runs.index[4::12], "test_top1"] = math.nan
    found = factorial.analyse(manifest, runs)
    assert found.left_out == (0,)
    assert len(found.absent) == 1
    assert found.seeds == (1, 2, 3, 4)


def test_what_is_no_factorial_is_none():
    manifest, runs = study()
    assert factorial.analyse(manifest, runs[runs["seed"] == 0]) is None
    assert factorial.analyse(Manifest("one", factors=["op"]), runs) is None
    diagonal = runs[(runs["op"] == "lsa") == (runs["op/channel"] == "plain")]
    assert factorial.analyse(manifest, diagonal) is None  # the two factors cannot be told apart


@pytest.mark.parametrize("finished", [0, 1, 2])
def test_a_study_of_which_few_seeds_have_finished_has_no_analysis_yet(finished):
    manifest, runs = study()
    runs.loc[runs["seed"] >= finished, ["state", "test_top1"]] = ["pending", math.nan]
    assert factorial.analyse(manifest, runs) is None
