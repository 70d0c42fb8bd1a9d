"""From Python: what a notebook does, against what the command line does with the same words."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.results.conftest import fabricate  # noqa: F401  a fixture

import ablate as package
from ablate.errors import UserError

ROOT = Path(__file__).parent.parent
TOP1 = {
    "lsa": {0: 84.0, 1: 84.5, 2: 83.5},
    "elsa": {0: 85.0, 1: 85.4, 2: 84.6},
    "dwconv": {0: 83.0, 1: 83.2, 2: 82.9},
}


def test_a_study_is_compared_and_reported_as_on_the_command_line(
    fabricate: Callable,  # noqa: F811
    ablate: Callable,
    tmp_path: Path,
) -> None:
    fabricate(TOP1, baseline={"op": "lsa"})
    study = package.Study.load("quick", runs_dir=str(tmp_path))
    assert study.conditions == list(TOP1)
    assert len(study.frame()) == 9
    assert set(study.curves()["epoch"]) == set(range(1, 21))
    found = study.compare(baseline="dwconv", margin=0.2, seeds=[0, 1]).set_index("condition")
    assert found.loc["elsa", "difference"] == pytest.approx(2.1)
    assert found.loc["elsa", "low"] < 2.1 < found.loc["elsa", "high"]
    assert (found["n"] == 2).all()
    assert (found["margin"] == 0.2).all()
    page = study.report(tmp_path / "python", baseline=["op=dwconv"], drop="elsa")
    ablate(
        "report",
        "quick",
        "--runs-dir",
        str(tmp_path),
        "--baseline",
        "op=dwconv",
        "--drop",
        "elsa",
        "-o",
        "cli",
    )
    for name in ("table.csv", "comparisons_values.csv", "results.csv"):
        assert (page.parent / name).read_bytes() == (tmp_path / "cli" / name).read_bytes()
    assert study.figure("differences").axes
    assert list(study.table().values()["Condition"]) == list(TOP1)
    for call in (
        lambda: study.compare(baselin="lsa"),  # type: ignore[call-arg]
        lambda: study.figure("diferences"),
        lambda: study.table("tabel"),
        lambda: package.Study.load("quik", tmp_path),
        lambda: package.runs(tmp_path, operater="lsa"),
    ):
        with pytest.raises(UserError, match="did you mean"):
            call()
    assert set(package.runs(tmp_path, operator="lsa")["seed"]) == {0, 1, 2}
    assert len(package.runs(str(tmp_path), state="finished")) == 9


def test_a_study_of_a_record_is_compared_without_its_runs() -> None:
    study = package.Study.records(ROOT / "experiments" / "quick", ROOT / "conf")["quick"]
    whole, few = study.compare(), study.compare(seeds=[0, 1], drop="elsa")
    assert set(whole["condition"]) - set(few["condition"]) == {"elsa"}
    assert (few["n"] == 2).all()
    by_hand = study.frame().query("seed in [0, 1]").groupby("condition")["test_top1"].mean()
    for row in few.itertuples():
        assert row.difference == pytest.approx(by_hand[row.condition] - by_hand[row.baseline])
    with pytest.raises(UserError, match="give output"):
        study.report()


def test_training_from_python_is_the_run_of_the_command_line(ablate: Callable, tmp_path: Path) -> None:
    settings = {"recipe": "debug", "data": "synthetic", "recipe.epochs": 1, "infra": {"tracking": "none"}}
    before = list(sys.argv)
    study = package.train({**settings, "op": ["dwconv", "lsa"], "seed": [0], "study.name": "small"})
    assert sys.argv == before
    assert list(study.frame()["state"]) == ["finished", "finished"]
    again = ablate(
        "train", "-m", "recipe=debug", "data=synthetic", "recipe.epochs=1", "op=dwconv,lsa", "seed=0"
    )
    assert "2 finished before" in again.err
    single = package.train({**settings, "op": "dwconv"})
    assert single.frame()["signature"].isin(study.frame()["signature"]).all()
    assert package.Study.load(single.name, tmp_path / "runs").frame()["test_top1"].notna().all()
    with pytest.raises(UserError, match="did you mean"):
        package.train({"op": "dwconw"})


def test_the_package_alone_stays_light() -> None:
    code = "import sys, ablate; assert 'Study' in dir(ablate); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pandas", "torch", "hydra", "matplotlib"} & set(done.stdout.split())


def test_records_are_one_study_where_they_share_a_host() -> None:
    folders = [ROOT / "experiments" / name for name in ("operators", "lsa_to_elsa")]
    study = package.Study.pooled(folders, "swin_micro", ROOT / "conf")
    assert {"lsa", "lsa_to_elsa: ghost_head"} <= set(study.conditions)
    assert study.frame()["signature"].is_unique
    front = study.table("front").values()
    assert 1 < len(front) < len(study.conditions)
    assert study.figure("accuracy_macs") is not None
    with pytest.raises(UserError, match="no run in host"):
        package.Study.pooled(folders, "swin_tiny", ROOT / "conf")
