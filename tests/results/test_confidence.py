"""Confidence curves: judged by scipy's t-tests of the same runs, read off the drawn lines."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ablate.results import comparisons, figures, statistics
from ablate.results.comparisons import Findings
from ablate.results.figures.confidence import MOST, curved
from ablate.store.manifest import Manifest, PlannedRun


def study(conditions: int, seeds: int, *, paired: bool = True) -> tuple[Findings, np.ndarray]:
    """Findings of a study with random figures, and these, (conditions, seeds)."""
    drawn = np.random.default_rng(0).normal(80, 1, (conditions, seeds))
    runs = [
        PlannedRun(f"{c:06x}{s:06x}", f"{c}", s, {"op": f"op{c}"})
        for c in range(conditions)
        for s in range(seeds)
    ]
    frame = pd.DataFrame(
        {
            "signature": [run.signature for run in runs],
            "condition": [run.factors["op"] for run in runs],
            "seed": [run.seed for run in runs],
            "state": "finished",
            "test_top1": drawn.ravel(),
        }
    )
    manifest = Manifest("curves", factors=["op"], runs=runs, margin=0.5)
    return comparisons.analyse(manifest, frame, paired=paired), drawn


@pytest.mark.parametrize("paired", [True, False])
def test_every_point_of_a_curve_is_a_t_test(paired: bool) -> None:
    findings, drawn = study(3, 5, paired=paired)
    figure = figures.confidence_curves(findings)
    for axes, mine, each in zip(figure.axes, drawn[1:], findings.comparisons, strict=False):
        curve = max(axes.lines, key=lambda line: len(np.atleast_1d(line.get_xdata())))
        hypotheses, p = (np.asarray(values, dtype=float) for values in curve.get_data())
        judges = [
            stats.ttest_rel(mine - true, drawn[0])
            if paired
            else stats.ttest_ind(mine - true, drawn[0], equal_var=False)
            for true in hypotheses[::40]
        ]
        assert p[::40] == pytest.approx([judge.pvalue for judge in judges], rel=1e-9)
        assert p.max() == pytest.approx(1)  # at the measured difference
        levels = {
            float(line.get_ydata()[0]): line.get_xdata()
            for line in axes.lines
            if len(line.get_xdata()) == 2 and line.get_ydata()[0] == line.get_ydata()[1]
        }
        assert sorted(levels) == pytest.approx([0.05, 0.1])
        assert levels[min(levels)] == pytest.approx(each.interval)
        assert levels[max(levels)] == pytest.approx(each.interval_90)
        left, right = axes.get_xlim()
        assert left < min(-0.5, each.interval[0]) and max(0.5, each.interval[1]) < right  # the margin, too


def test_the_ends_of_an_interval_have_its_level() -> None:
    differences = [0.1, 0.9, -0.4, 0.6]
    mean, error = float(np.mean(differences)), statistics.standard_error(differences)
    for confidence in (0.5, 0.9, 0.95, 0.999):
        ends = statistics.t_interval(differences, confidence)
        assert statistics.p_of_difference(ends, mean, error, 3) == pytest.approx([1 - confidence] * 2)


def test_of_many_conditions_those_that_differ_most_have_a_panel() -> None:
    findings, _ = study(40, 4)
    chosen = curved(findings)
    left_out = [each for each in findings.comparisons if each not in chosen]
    assert len(chosen) == MOST and len(left_out) == 15
    smallest = min(abs(each.difference) for each in chosen)
    assert all(abs(each.difference) <= smallest for each in left_out)
    titles = [axes.get_title().split("\n")[0] for axes in figures.confidence_curves(findings).axes]
    assert titles == [each.condition for each in chosen]  # in the order of the study


def test_one_pair_has_no_curve() -> None:
    findings, _ = study(3, 1)
    assert curved(findings) == []
    (axes,) = figures.confidence_curves(findings).axes
    assert [text.get_text() for text in axes.texts] == ["no comparison has an interval yet"]
