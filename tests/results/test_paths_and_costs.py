"""Walks, Pareto fronts, equal budgets, time to an accuracy, runs that did not converge."""

import math

import pandas as pd
import pytest
from scipy import stats

from ablate.errors import UserError
from ablate.results import costs, curves, paths
from ablate.results.collect import collect, collect_metrics
from ablate.results.comparisons import analyse
from ablate.store import metrics
from ablate.store.metrics import Metric, TaskMetrics

TOP1 = {
    "lsa": {0: 80.0, 1: 81.0, 2: 79.5},
    "lsa_neighborhood": {0: 82.0, 1: 82.5, 2: 81.8},
    "dwconv": {0: 81.0, 1: 81.2, 2: 80.6},
    "elsa": {0: 83.0, 1: 83.9, 2: 83.1},
}


@pytest.fixture
def findings(fabricate, tmp_path):
    manifest = fabricate(TOP1, paths={"walk": ["lsa", "lsa_neighborhood", "elsa"], "back": ["elsa", "lsa"]})
    return analyse(manifest, collect(tmp_path, "quick"))


def test_a_walk_has_steps_and_what_they_come_to(findings):
    walk, back = paths.analyse(findings)
    steps = [step.step.difference for step in walk.steps[1:]]
    assert sum(steps) == pytest.approx(walk.steps[-1].so_far.difference)
    assert back.steps[1].step.difference == pytest.approx(-sum(steps))
    assert walk.steps[0].step is None
    assert walk.steps[1].step.baseline == "lsa" and walk.steps[2].step.baseline == "lsa_neighborhood"
    assert walk.steps[1].step.p_holm == pytest.approx(3 * walk.steps[1].step.p)  # three steps in all


def test_a_walk_through_an_unknown_condition_is_refused(findings):
    findings.manifest.paths["walk"] = ["lsa", "esla"]
    with pytest.raises(UserError, match="elsa"):
        paths.analyse(findings)


def test_nobody_on_the_front_is_beaten_and_everybody_else_is(findings):
    front = costs.pareto(findings.summaries)
    assert front == ["dwconv", "lsa_neighborhood", "elsa"]  # lsa costs as much as its neighborhood form
    assert costs.pareto(findings.summaries, higher=False)[0] == "dwconv"


def test_equal_budgets_are_compared_and_the_baselines_pairs_are_not_repeated(findings):
    assert costs.matched(findings) == []
    (found,) = costs.matched(findings, tolerance=0.06)
    assert (found.condition, found.baseline) == ("elsa", "lsa_neighborhood")
    assert found.p == found.p_holm == 0.25


def test_the_time_to_the_baselines_accuracy(findings, tmp_path):
    metrics = collect_metrics(tmp_path, findings.runs)
    reached = {each.condition: each for each in curves.time_to(findings, metrics)}
    assert reached["elsa"].epochs < reached["lsa_neighborhood"].epochs < reached["lsa"].epochs
    assert reached["elsa"].reached == reached["elsa"].n == 3
    (never, *_) = curves.time_to(findings, metrics, target=99.0)
    assert never.reached == 0 and math.isnan(never.epochs)


def test_bands_hold_their_mean(findings, tmp_path):
    band = curves.band(collect_metrics(tmp_path, findings.runs), "elsa")
    assert (band["low"] < band["mean"]).all() and (band["mean"] < band["high"]).all()
    assert (band["low"] == band["min"]).all() and (band["high"] == band["max"]).all()  # of three seeds
    five = [("x", "finished", 1, 70.0 + seed) for seed in range(5)]
    frame = pd.DataFrame(five, columns=["condition", "state", "epoch", "validation_top1"])
    low, high = stats.t.interval(0.95, 4, loc=72.0, scale=stats.sem(range(5)))
    assert curves.band(frame, "x").loc[1, ["low", "high"]].tolist() == pytest.approx([low, high])


def test_what_did_not_converge_is_told_with_its_reason():
    def run(name, losses, accuracies):
        epochs = range(1, len(losses) + 1)
        rows = zip(epochs, losses, accuracies, strict=True)
        return [(name, "finished", *row) for row in rows]

    rows = [
        *run("good", [2.0, 1.0], [50, 60]),
        *run("flat", [2.3, 2.3], [10, 10]),
        *run("nan", [2.3, math.nan], [10, 10]),
        *run("collapsed", [2.0, 1.0], [60, 10]),
    ]
    columns = ["signature", "state", "epoch", "train_loss", "validation_top1"]
    reasons = curves.not_converged(pd.DataFrame(rows, columns=columns))
    assert set(reasons) == {"flat", "nan", "collapsed"}
    assert "did not fall" in reasons["flat"] and "below its best" in reasons["collapsed"]


def test_unpaired_is_marked_and_wider_where_seeds_share_much(findings, tmp_path):
    unpaired = analyse(findings.manifest, findings.runs, paired=False)
    for one, other in zip(findings.comparisons, unpaired.comparisons, strict=True):
        assert one.paired and not other.paired
        assert one.difference == pytest.approx(other.difference)
        assert one.interval[1] - one.interval[0] < other.interval[1] - other.interval[0]
        assert other.smallest_p == 0.1


def test_less_of_a_loss_is_reached_from_above(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time to a value follows the direction of the metric, and points are of percent only."""
    monkeypatch.setitem(
        metrics.TASKS, "regression", TaskMetrics((Metric("error", "error", higher=False),), "error", "error")
    )
    run = pd.DataFrame(
        {
            **{"signature": "a", "state": "finished", "condition": "x", "seconds": 1.0},
            **{"epoch": [1, 2, 3], "train_loss": [3.0, 2.0, 1.0], "validation_error": [30.0, 20.0, 40.0]},
        }
    )
    assert curves.column(run) == "validation_error"
    assert curves._crossing(run, "validation_error", 25.0) == 1.5
    assert not curves.not_converged(run)
