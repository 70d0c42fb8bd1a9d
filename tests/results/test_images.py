"""Test images as pairs: judged by scipy, statsmodels and planted truths; kept by runs, shown by reports."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from ablate.results import images, predictions
from ablate.results.images import Components
from ablate.results.predictions import Kept, Predictions
from ablate.results.report import examined, report
from ablate.store.folder import RunFolder


def answers(images: int, accuracy: float, *draw: int, classes: int = 10) -> Predictions:
    """Predictions that are right with this probability, more often for some images than for others."""
    hard = stats.norm.isf(np.random.default_rng(99).random(images))
    own = np.random.default_rng(draw)
    label = np.arange(images) % classes
    right = hard + own.normal(size=images) < np.sqrt(2) * stats.norm.ppf(accuracy)
    confidence = own.uniform(0.3, 1.0, images)
    return Predictions(
        label, np.where(right, label, (label + 1) % classes), np.where(right, confidence, 0.1), confidence
    )


def test_a_file_keeps_every_image_in_a_few_bytes(tmp_path: Path) -> None:
    path, one = tmp_path / "predictions.npz", answers(10_000, 0.8, 0)
    predictions.write(path, Kept(one, ["shirt", "boot"]))
    found = predictions.read(path)
    assert found is not None and found.names == ["shirt", "boot"]
    np.testing.assert_array_equal(found.predictions.correct, one.correct)
    np.testing.assert_allclose(found.predictions.confidence, one.confidence, atol=1e-3)
    assert path.stat().st_size < 100_000
    data = path.read_bytes()
    for damaged in (data[: len(data) // 2], b"", data[:3000] + b"!" + data[3001:]):
        path.write_bytes(damaged)
        assert predictions.read(path) is None
    np.savez(path, **{**one._asdict(), "label": one.label[1:]}, names=np.array([], dtype=str))
    assert predictions.read(path) is None


def test_calibration_error_and_accuracy_by_class_are_their_definitions() -> None:
    one = answers(3000, 0.7, 1)
    gap = 0.0
    for low in np.arange(15) / 15:
        chosen = (one.confidence >= low) & (one.confidence < low + 1 / 15)
        if chosen.any():
            gap += chosen.mean() * abs(one.correct[chosen].mean() - one.confidence[chosen].mean())
    assert one.calibration_error() == pytest.approx(100 * gap)
    for label, value in one.accuracy_by_class().items():
        assert value == pytest.approx(100 * one.correct[one.label == label].mean())


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (7, 7), (31, 12), (900, 1000)])
def test_mcnemar_is_the_binomial_test(gained: int, lost: int) -> None:
    judge = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert images.mcnemar_p(gained, lost) == pytest.approx(judge, rel=1e-9)


def test_components_are_those_of_the_two_way_layout() -> None:
    draw = np.random.default_rng(0)
    table = draw.normal(size=(4, 1)) + draw.normal(size=30) + draw.normal(size=(4, 30))
    rows = [{"seed": s, "image": i, "d": table[s, i]} for s in range(4) for i in range(30)]
    layout = anova_lm(ols("d ~ C(seed) + C(image)", pd.DataFrame(rows)).fit())
    squares = dict(zip(("seed", "image", "rest"), layout["sum_sq"] / layout["df"], strict=True))
    found = Components.of(table)
    assert found.rest == pytest.approx(squares["rest"])
    assert found.of_seeds == pytest.approx((squares["seed"] - squares["rest"]) / 30)
    assert found.of_images == pytest.approx((squares["image"] - squares["rest"]) / 4)
    assert found.error(images=10**12) == pytest.approx(np.sqrt(found.of_seeds / 4), rel=1e-6)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_intervals_hold_for_other_seeds_and_other_images(seeds: int) -> None:
    """Every draw has its own seeds and images; an interval over seeds alone misses the truth more often."""
    draw, covered, alone, trials, truth = np.random.default_rng(seeds), 0, 0, 400, 0.02
    for _ in range(trials):
        chance = truth + draw.normal(0, 0.01, (seeds, 1)) + draw.normal(0, 0.35, 400)
        table = np.clip(np.round(chance + draw.uniform(-0.5, 0.5, (seeds, 400))), -1, 1)
        low, high = images._interval(float(table.mean()), Components.of(table))
        covered += low <= 100 * truth <= high
        low, high = stats.t.interval(0.95, seeds - 1, table.mean(1).mean(), stats.sem(table.mean(1)))
        alone += low <= truth <= high
    assert covered / trials > 0.93
    assert alone < covered


def test_a_report_pairs_the_images_of_the_runs_that_kept_them(fabricate, tmp_path: Path) -> None:
    manifest = fabricate({"lsa": dict.fromkeys(range(4), 74.0), "elsa": dict.fromkeys(range(4), 78.0)})
    kept: dict[tuple[str, int], Predictions] = {}
    for run in manifest.runs:
        operator = run.factors["op"]
        one = answers(500, 0.78 if operator == "elsa" else 0.74, run.seed, operator == "elsa")
        if (operator, run.seed) == ("elsa", 3):
            one = answers(400, 0.78, run.seed)  # another test set
        kept[operator, run.seed] = one
        if (operator, run.seed) != ("lsa", 2):
            predictions.write(RunFolder(tmp_path / run.signature).predictions_path, Kept(one, []))
    report(tmp_path, "quick")
    folder = tmp_path / "studies" / "quick" / "report"
    row = pd.read_csv(folder / "images.csv").iloc[0]
    tables = [kept["elsa", seed].correct.astype(int) - kept["lsa", seed].correct for seed in (0, 1)]
    assert row["Condition"] == "elsa" and row["n"] == 2
    assert row["Gained"] == pytest.approx(np.mean([(table > 0).sum() for table in tables]), abs=0.51)
    difference = f"{100 * np.mean(tables):+.1f}".replace("-", "−")
    assert difference in row["Difference (pp) [95 %, seeds and images]"]
    assert "2 finished runs without predictions of these images" in (folder / "images.md").read_text()
    assert "due to the runs" in (folder / "index.html").read_text()
    classes = pd.read_csv(folder / "classes.csv")
    assert set(classes["metric"]) == {"top1"} and classes["signature"].nunique() == 7
    (third,) = (one for one in examined(tmp_path, ["quick"]).classes if one.name == "3")
    (found,) = third.comparisons
    by_seed = [kept[found.condition, seed].accuracy_by_class()[3] for seed in (0, 1, 3)]
    differences = np.subtract(by_seed, [kept["lsa", seed].accuracy_by_class()[3] for seed in (0, 1, 3)])
    judge = stats.t.interval(0.95, 2, differences.mean(), stats.sem(differences))
    assert found.n == 3 and found.interval == pytest.approx(judge)


def test_runs_without_predictions_read_as_before(fabricate, tmp_path: Path) -> None:
    fabricate({"lsa": {0: 74.0, 1: 75.0}, "elsa": {0: 78.0, 1: 79.0}})
    report(tmp_path, "quick")
    folder = tmp_path / "studies" / "quick" / "report"
    assert not list(folder.glob("images.*")) and not list(folder.glob("by_class.*"))
    assert "Test images as pairs" not in (folder / "index.html").read_text()
