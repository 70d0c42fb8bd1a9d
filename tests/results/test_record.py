"""Records read from their CSV files alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ablate.errors import UserError
from ablate.results import record
from ablate.results.collect import collect, collect_metrics, write_csv

STUDY = {
    "name": "quick",
    "question": "Which?",
    "factors": ["op"],
    "baseline": {"op": "1"},
    "metric": "test_top1",
}


@pytest.fixture
def folder(fabricate, tmp_path: Path) -> Path:
    """Levels that look like numbers, and a run that failed."""
    fabricate({"1": {0: 80.0, 1: 81.0}, "2": {0: 82.0, 1: ("failed", "no memory")}})
    runs = collect(tmp_path, "quick")
    found = tmp_path / "experiments" / "quick"
    found.mkdir(parents=True)
    write_csv(runs, found / "results.csv")
    write_csv(collect_metrics(tmp_path, runs), found / "curves.csv")
    study = tmp_path / "conf" / "study"
    study.mkdir(parents=True)
    (study / "quick.yaml").write_text(yaml.safe_dump({"study": STUDY}))
    return found


def test_a_record_is_what_its_runs_were(folder: Path, tmp_path: Path) -> None:
    (evidence,) = record.read(folder, tmp_path / "conf").values()
    assert evidence.findings.baseline == "1"
    (comparison,) = evidence.findings.comparisons
    assert (comparison.condition, comparison.differences, comparison.missing) == ("2", (2.0,), 1)
    assert [each.n for each in evidence.reached] == [2, 1]
    paths = record.regenerate(folder, tmp_path / "conf", tmp_path / "again")
    assert {path.suffix for path in paths} == {".svg", ".md", ".tex", ".csv"}
    (folder / "curves.csv").unlink()
    fewer = {path.name for path in record.regenerate(folder, tmp_path / "conf", tmp_path / "fewer")}
    assert {path.name for path in paths} - fewer >= {"learning_curves.svg", "time_to_accuracy.md"}


def test_a_record_needs_its_results_and_its_study(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ablate collect nothing"):
        record.read(tmp_path / "nothing", tmp_path / "conf")
    (tmp_path / "conf" / "study" / "quick.yaml").unlink()
    with pytest.raises(UserError, match="keeps its study's settings"):
        record.read(folder, tmp_path / "conf")


def test_the_full_scale_studies_are_read_through_those_that_they_start_from() -> None:
    conf = Path(__file__).parents[2] / "conf"
    asked = record._asked("imagenet/lsa_to_elsa", conf)
    assert asked["name"] == "imagenet/lsa_to_elsa"
    assert asked["factors"] == ["variant"]
