"""`ablate plan`: what is left, what it takes and what it can show; nothing is written."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from scipy import stats

from ablate.results import statistics
from ablate.studies import prospect

TINY = (
    *("data=synthetic", "recipe=debug", "recipe.epochs=1", "infra.tracking=none", "infra.threads=1"),
    *("infra.device=cpu", "study.name=s"),
)


def rows(out: str) -> dict[str, list[str]]:
    """Cells of the table by condition."""
    lines = (re.split(r"\s{2,}", line.strip()) for line in out.splitlines())
    return {cells[0]: cells[1:] for cells in lines if len(cells) > 3}


def test_a_plan_before_and_after_its_first_runs(ablate: Callable, tmp_path: Path) -> None:
    study = ("-m", "op=dwconv,lsa", "seed=0,1", *TINY)
    before = ablate("plan", *study)
    assert before.code == 0, before.err
    assert not list(tmp_path.iterdir())
    assert "4 runs left" in before.out
    assert before.out.count("measured here") == 2
    assert "2 pairs show" in before.out
    again = ablate("train", "--dry-run", "--quick", *study[1:], "-m")
    assert "how long they take is not known" in again.out
    assert not list(tmp_path.iterdir())
    assert ablate("train", *study).code == 0
    after = ablate("plan", "-m", "op=dwconv,lsa", "seed=0,1,2", *TINY)
    assert "2 runs left" in after.out
    table = rows(after.out)
    assert table["dwconv"][:3] == ["3", "2", "1"]
    assert table["dwconv"][-1] == "other seeds (2 runs)"
    assert "on disk" in after.out
    assert "points, by the runs so far" in after.out
    other = ablate("plan", "op=elsa", *TINY)
    assert "other operators (3 runs)" in other.out


def test_what_cannot_exist_is_listed_with_its_reason(ablate: Callable, tmp_path: Path) -> None:
    done = ablate("plan", "--quick", "-m", "op=elsa", "op/region=neighborhood,window", "seed=0,1", *TINY)
    assert done.code == 0, done.err
    assert "2 runs left" in done.out
    assert re.search(r"cannot exist: .*op/region=window: .*neighborhood", done.out)
    search = ("hydra/sweeper=optuna", "recipe.learning_rate=interval(0.001,0.01)", "hydra.sweeper.n_trials=3")
    refused = ablate("plan", *search, "study.name=o", *TINY[:-1], "-m")
    assert refused.code == 2
    assert "cannot be planned" in refused.err
    assert not list(tmp_path.iterdir())
    refused = ablate("plan", "op=elza", *TINY)
    assert refused.code == 2
    assert "did you mean 'elsa'" in refused.err


def test_the_smallest_effect_is_the_one_with_that_power() -> None:
    found = prospect._smallest(lambda effect: statistics.power(10, effect))
    assert found == pytest.approx(0.9960, abs=1e-3)  # d for n = 10 pairs and 80 %, by statsmodels' solver
    assert statistics.power(10, found) == pytest.approx(0.8, abs=2e-3)
    assert prospect._smallest(lambda effect: 0.0) is None
    assert stats.t.ppf(0.975, 9) < found * 10**0.5
