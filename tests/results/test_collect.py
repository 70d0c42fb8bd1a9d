"""What lies on disk, as tidy rows."""

import math

import pandas as pd
import pytest

from ablate.errors import UserError
from ablate.results.collect import collect, collect_metrics, write_csv
from ablate.store.files import append_json_line, write_text
from ablate.store.folder import RunFolder
from ablate.store.manifest import PlannedRun


def test_every_planned_run_is_a_row_in_the_manifests_order(half_finished, tmp_path):
    runs = collect(tmp_path, "quick")
    assert list(runs["signature"]) == [run.signature for run in half_finished.runs]
    assert list(runs["state"]) == [
        *["finished"] * 5,
        "failed",
        "finished",
        "missing",
        "pending",
    ]
    assert list(runs.columns[:8]) == [
        "study",
        "condition",
        "op",
        "seed",
        "signature",
        "pair_key",
        "state",
        "error",
    ]


def test_figures_axes_and_environment_stand_in_the_row(half_finished, tmp_path):
    row = collect(tmp_path, "quick").iloc[0]
    expected = {
        "test_top1": 84.0,
        "parameters": 460_123,
        "operator": "lsa",
        "heads": "1x",
        "region": "window",
        "host": "swin_micro",
        "hostname": "node1",
        "commit": "0123abc",
        "torch": "2.9.0",
        "epoch": 20,
    }
    assert {key: row[key] for key in expected} == expected


def test_the_error_is_one_line_even_from_a_traceback(fabricate, tmp_path):
    manifest = fabricate({"lsa": {0: ("failed", "first\nsecond"), 1: ("failed", "")}})
    write_text(
        RunFolder(tmp_path / manifest.runs[1].signature).error_path, "Traceback:\n  x\nValueError: no\n"
    )
    assert list(collect(tmp_path, "quick")["error"]) == ["first", "ValueError: no"]


def test_broken_files_leave_gaps_and_not_exceptions(fabricate, tmp_path):
    manifest = fabricate({"lsa": {0: 84.0}})
    folder = RunFolder(tmp_path / manifest.runs[0].signature)
    write_text(folder.config_path, "op: [unclosed")
    write_text(folder.result_path, '{"test_top1": 84')
    write_text(folder.environment_path, "")
    row = collect(tmp_path, "quick").iloc[0]
    assert row["state"] == "damaged"
    for name in ("config.yaml", "result.json", "environment.json"):
        assert f"{name} is damaged" in row["error"]
    assert math.isnan(row["test_top1"])
    assert row["operator"] is None


def test_several_factors_are_told_apart_by_their_short_names(fabricate, tmp_path):
    factors = ["op/region", "op.channel.heads"]
    runs = [PlannedRun("0" * 12, "a", 0, {"op/region": "window", "op.channel.heads": "C"})]
    fabricate({}, factors=factors, runs=runs)
    frame = collect(tmp_path, "quick")
    assert frame.loc[0, "condition"] == "region=window, heads=C"
    assert list(frame.loc[0, factors]) == ["window", "C"]


def test_the_csv_reads_back(half_finished, tmp_path):
    runs = collect(tmp_path, "quick")
    write_csv(runs, tmp_path / "runs.csv")
    again = pd.read_csv(tmp_path / "runs.csv")
    assert list(again["test_top1"].dropna()) == list(runs["test_top1"].dropna())
    assert len(again) == len(runs)


def test_an_epoch_trained_again_counts_once(fabricate, tmp_path):
    manifest = fabricate({"lsa": {0: 84.0}})
    folder = RunFolder(tmp_path / manifest.runs[0].signature)
    append_json_line(folder.metrics_path, {"epoch": 20, "validation_top1": 12.5})
    metrics = collect_metrics(tmp_path, collect(tmp_path, "quick"))
    assert list(metrics["epoch"]) == list(range(1, 21))
    assert metrics["validation_top1"].iloc[-1] == 12.5


def test_an_unknown_study_is_named(half_finished, tmp_path):
    with pytest.raises(UserError, match="did you mean 'quick'"):
        collect(tmp_path, "quik")
