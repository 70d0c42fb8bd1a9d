"""Records read from their CSV files alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from ablate.errors import UserError
from ablate.results import record, tables
from ablate.results.collect import collect, collect_metrics, write_csv
from ablate.store.manifest import load

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
    shown = evidence.drawings()["differences"]()._repr_svg_()  # in a notebook
    assert shown == (tmp_path / "again" / "figures" / "differences.svg").read_text(encoding="utf-8")
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


def test_records_are_pooled_and_a_shared_run_counts_once(folder: Path, tmp_path: Path) -> None:
    runs = pd.read_csv(folder / "results.csv", dtype={"op": str, "condition": str})
    own = runs["condition"] == "2"
    runs["study"], runs["test_top1"] = "other", runs["test_top1"].where(~own, runs["test_top1"] + 1)
    runs["signature"] = runs["signature"].where(~own, "other-" + runs["signature"])
    other = folder.parent / "other"
    other.mkdir()
    runs.to_csv(other / "results.csv", index=False)
    settings = yaml.safe_dump({"study": {**STUDY, "name": "other"}})
    (tmp_path / "conf" / "study" / "other.yaml").write_text(settings)
    host = str(runs["host"].iloc[0])

    findings = record.pooled([folder, other], tmp_path / "conf", host)
    assert [summary.condition for summary in findings.summaries] == ["1", "2", "other: 2"]
    assert [summary.n for summary in findings.summaries] == [2, 1, 1]
    assert {c.condition: c.differences for c in findings.comparisons} == {"2": (2.0,), "other: 2": (3.0,)}
    table = tables.front(findings)
    assert [row["Condition"].text for row in table.rows] == ["other: 2"]  # all cost the same here
    assert "The 1 of 3 conditions" in table.note
    with pytest.raises(UserError, match="no run in host 'none'"):
        record.pooled([folder, other], tmp_path / "conf", "none")


def test_a_record_keeps_the_margin_of_its_runs_and_takes_none_from_the_studys_file(
    folder: Path, tmp_path: Path
) -> None:
    settings = yaml.safe_dump({"study": {**STUDY, "margin": 0.5}})
    (tmp_path / "conf" / "study" / "quick.yaml").write_text(settings)
    (evidence,) = record.read(folder, tmp_path / "conf").values()
    assert evidence.findings.margin.mark == "default", "it was written after the runs"
    manifest = load(tmp_path, "quick")
    replace(manifest, margin=0.3, margin_after=2).save(tmp_path)
    write_csv(collect(tmp_path, "quick"), folder / "results.csv")
    (evidence,) = record.read(folder, tmp_path / "conf").values()
    assert evidence.findings.margin.sentence == "Margin: ±0.3 pp, set when 2 runs had finished already."


def test_a_level_that_is_null_is_a_level(folder: Path, tmp_path: Path) -> None:
    text = (folder / "results.csv").read_text(encoding="utf-8")
    assert text.count("\nquick,1,1,") == 2
    (folder / "results.csv").write_text(text.replace("\nquick,1,1,", "\nquick,null,null,"), encoding="utf-8")
    (folder / "curves.csv").unlink()
    settings = {**STUDY, "baseline": {"op": None}}
    (tmp_path / "conf" / "study" / "quick.yaml").write_text(yaml.safe_dump({"study": settings}))
    (evidence,) = record.read(folder, tmp_path / "conf").values()
    assert evidence.findings.baseline == "null"
    assert evidence.findings.comparisons[0].condition == "2"
