"""Effects over hosts, data sets or studies: judged by metafor's published example and by statsmodels."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.meta_analysis import combine_effects

from ablate.results import beyond
from ablate.store.manifest import Manifest, PlannedRun

# Thirteen trials of a vaccine (Colditz et al. 1994), metafor's dat.bcg: cases and others, vaccinated and not.
TRIALS = (
    *((4, 119, 11, 128), (6, 300, 29, 274), (3, 228, 11, 209), (62, 13536, 248, 12619), (33, 5036, 47, 5761)),
    *((180, 1361, 372, 1079), (8, 2537, 10, 619), (505, 87886, 499, 87892), (29, 7470, 45, 7232)),
    *((17, 1699, 65, 1600), (186, 50448, 141, 27197), (5, 2493, 3, 2338), (27, 16886, 29, 17825)),
)


def trials() -> tuple[list[float], list[float]]:
    """Logarithms of relative risks and their standard errors."""
    effects = [math.log(a / (a + b) / (c / (c + d))) for a, b, c, d in TRIALS]
    errors = [math.sqrt(1 / a - 1 / (a + b) + 1 / c - 1 / (c + d)) for a, b, c, d in TRIALS]
    return effects, errors


def test_restricted_maximum_likelihood_is_metafors() -> None:
    mean, _, _, between = beyond.random_effects(*trials())
    assert mean == pytest.approx(-0.7145, abs=5e-5)
    assert between**2 == pytest.approx(0.3132, abs=5e-5)


def test_the_interval_is_that_of_statsmodels_at_the_same_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    effects, errors = trials()
    judge = combine_effects(np.array(effects), np.array(errors) ** 2, method_re="iterated", use_t=True)
    monkeypatch.setattr(beyond, "_restricted", lambda y, variances: judge.tau2)
    mean, (low, high), prediction, _ = beyond.random_effects(effects, errors)
    assert mean == pytest.approx(judge.mean_effect_re)
    half = (high - low) / 2
    assert half == pytest.approx(judge.sd_eff_w_re_hksj * 2.178812829667228)  # t of 12 degrees
    assert prediction[0] < low < high < prediction[1]


@pytest.mark.parametrize("between", [0.0, 0.5, 1.5])
@pytest.mark.parametrize(("places", "seeds"), [(3, 2), (6, 3), (6, 5)])
def test_intervals_cover_with_errors_that_are_estimated(between: float, places: int, seeds: int) -> None:
    generator, draws, covered, predicted = np.random.default_rng(0), 300, 0, 0
    for _ in range(draws):
        true = generator.normal(1, between, places + 1)
        runs = generator.normal(true[:places, None], 1, (places, seeds))
        mean, (low, high), (lowest, highest), _ = beyond.random_effects(
            runs.mean(1), beyond._errors(runs.tolist())
        )
        covered += low <= 1 <= high
        predicted += lowest <= true[places] <= highest
        assert low < mean < high
    assert covered / draws > 0.92
    assert predicted / draws > 0.87


def test_places_whose_pairs_all_agree_have_an_effect() -> None:
    figures = {
        ("a", "lsa"): [1.0, 2.0],
        ("b", "lsa"): [1.0, 2.0],
        ("a", "elsa"): [2.0, 3.0],
        ("b", "elsa"): [4.0, 5.5],
    }
    found = beyond.analyse(*study(figures))
    assert found is not None
    assert math.isfinite(found.effects[0].mean)
    assert 1 < found.effects[0].mean < 3.25
    mean, (low, high), _, _ = beyond.random_effects([0, 0], [1, 1])
    assert low < mean == 0 < high


def study(figures: dict[tuple[str, str], list[float]]) -> tuple[Manifest, pd.DataFrame]:
    """A study of operators in hosts from a metric of every seed."""
    rows, runs = [], []
    for (host, op), values in figures.items():
        for seed, value in enumerate(values):
            signature = f"{len(rows):012x}"
            runs.append(PlannedRun(signature, "", seed, {"op": op, "host": host}))
            rows.append(
                {
                    "signature": signature,
                    "seed": seed,
                    "op": op,
                    "host": host,
                    "state": "finished",
                    "test_top1": value,
                }
            )
    return Manifest(
        "s", baseline={"op": "lsa", "host": "a"}, factors=["op", "host"], runs=runs
    ), pd.DataFrame(rows)


def test_effects_are_within_places_and_the_rest_between_them() -> None:
    figures = {
        (host, op): [
            level + seed + (gain if op == "elsa" else 0) + 0.01 * seed * (op == "elsa") for seed in range(3)
        ]
        for host, level, gain in (("a", 50, 1.0), ("b", 70, 2.0), ("c", 20, 3.0))
        for op in ("lsa", "elsa")
    }
    found = beyond.analyse(*study(figures))
    assert found is not None
    assert (found.baseline, found.kinds) == ("lsa", ("host",))
    (effect,) = found.effects
    assert effect.condition == "elsa"
    assert [place.name for place in effect.places] == ["a", "b", "c"]
    assert effect.mean == pytest.approx(2.01)
    assert effect.between == pytest.approx(1, rel=1e-3)  # all of the scatter
    assert effect.interval == pytest.approx(
        (2.01 - 4.3027 / math.sqrt(3), 2.01 + 4.3027 / math.sqrt(3)), rel=1e-3
    )
    assert (effect.better, effect.better_interval) == (1.0, (1.0, 1.0))
    lower = beyond.analyse(*study(figures), higher=False)
    assert lower is not None
    assert lower.effects[0].better == 0
    only_one = {key: values for key, values in figures.items() if key[0] == "a"}
    assert beyond.analyse(*study(only_one)) is None


def test_a_report_of_two_hosts_shows_them_and_the_mean(ablate: Callable, tmp_path: Path) -> None:
    tiny = ("data=synthetic", "recipe=debug", "recipe.epochs=1", "infra.threads=1", "infra.device=cpu")
    sizes = ("data.train=32", "data.validation=8", "data.test=40", "data.noise=3")
    grid = ("op=lsa,dwconv", "host=swin_micro,convnext_micro", "seed=0,1,2", "study.name=hosts")
    done = ablate("train", "-m", *tiny, *sizes, *grid)
    assert done.code == 0, done.err
    assert ablate("report", "hosts").code == 0
    folder = tmp_path / "runs/studies/hosts/report"
    page = (folder / "index.html").read_text()
    assert "Over host" in page
    assert (folder / "places.svg").exists()
    table = pd.read_csv(folder / "over_places_values.csv")
    assert list(table["Condition"]) == ["dwconv"]
