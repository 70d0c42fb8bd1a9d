"""`ablate bench acceptance` on a CPU: the steps of the day of the card, at toy size."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ablate.bench.acceptance import compare, runner, steps
from ablate.bench.acceptance.steps import STEPS, Setting, Step

SECONDS = 8 * 60  # that a card may be had for


def test_the_steps_fit_into_the_time_that_a_card_is_lent() -> None:
    assert steps.total(STEPS) <= SECONDS
    assert len({step.name for step in STEPS}) == len(STEPS) == 8


def test_every_step_at_toy_size_and_the_same_command_again(ablate: Callable, tmp_path: Path) -> None:
    done = ablate("bench", "acceptance", "--device", "cpu", "--out", "record")
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "record" / runner.RECORD).read_text())
    assert {name: step["state"] for name, step in record["steps"].items()} == {
        step.name: runner.DONE for step in STEPS
    }
    records = {name: step["records"] for name, step in record["steps"].items()}
    assert all(line["passed"] for line in records["selfcheck"]) and len(records["selfcheck"]) == 8
    assert {line["name"].split()[0].strip(",") for line in records["kernels"]} >= {
        *("aggregate_taps", "scores_taps", "spread_taps", "correlate", "attention_forward", "query_gradient"),
        *("key_gradients", "bias_gradient", "mixed_forward", "mixed_query_gradient", "mixed_key_gradients"),
        *("mixed_filter_gradient", "depthwise", "attention", "flex_attention", "copy"),
    }
    assert records["resume"][-1]["passed"]
    with tarfile.open(tmp_path / "record" / "kernels.tar.gz") as archive:
        assert {Path(name).suffix for name in archive.getnames()} == {".cubin", ".ptx"}
    page = (tmp_path / "record" / runner.PAGE).read_text()
    assert "at toy size" in page and all(f"## {step.name}: done" in page for step in STEPS)
    files = [path for path in (tmp_path / "record").rglob("*") if path.is_file()]
    assert len(files) <= 8 and sum(path.stat().st_size for path in files) < 2**24
    assert not list((tmp_path / "record").glob(".*"))

    again = ablate("bench", "acceptance", "--device", "cpu", "--out", "record")
    assert again.code == 0 and again.out.count("done before") == len(STEPS)
    same = ablate("bench", "compare", "record", "record")
    assert same.code == 0 and "0 apart by more than 5 %" in same.out


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(torch.device("cpu"), True, tmp_path / "record")


def _steps_of(command: list[str], monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """One step whose process is this command; the file for its records follows as an argument."""
    monkeypatch.setattr(runner, "_command", lambda step, setting, lines: [*command, str(lines)])
    return [Step("machine", 3, "versions")]


@pytest.mark.parametrize(
    ("code", "state", "problem"),
    [
        ("", runner.DONE, ""),
        ("raise SystemExit('no card')", runner.FAILED, "exit code 1: no card"),
        ("import os; os.abort()", runner.FAILED, "exit code -6"),
        ("import time; time.sleep(60)", runner.CUT_OFF, "more than 3 s"),
    ],
)
def test_a_step_that_ends_badly_leaves_what_it_has_measured(
    code: str, state: str, problem: str, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = """import sys; open(sys.argv[1], "a").write('{"name": "one", "seconds": 1.0}\\n{"name": "tw')"""
    chosen = _steps_of(["python3", "-c", f"{write}; sys.stdout.flush()\n{code}"], monkeypatch)
    monkeypatch.setattr(steps, "CPU_SECONDS", 3)
    record = runner.run(chosen, setting)
    found = json.loads((setting.folder / runner.RECORD).read_text())["steps"]["machine"]
    assert found == record["steps"]["machine"]
    assert found["state"] == state and problem in found["problem"]
    assert found["records"] == [{"name": "one", "seconds": 1.0}]
    assert bool(runner.failures(record)) == (state != runner.DONE)
    said: list[str] = []
    runner.run(chosen, setting, say=said.append)
    assert ("done before" in said[0]) == (state == runner.DONE)


def test_records_of_two_commits_are_not_mixed(
    ablate: Callable, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = _steps_of(["true"], monkeypatch)
    runner.run(chosen, setting)
    path = setting.folder / runner.RECORD
    path.write_text(path.read_text().replace('"commit": ', '"commit": "0" , "was": '))
    with pytest.raises(Exception, match="another run: commit 0"):
        runner.run(chosen, setting)
    assert set(runner.run(chosen, setting, again=True)["steps"]) == {"machine"}


def _record(folder: Path, seconds: float, passed: bool, toy: bool = False) -> Path:
    lines: list[dict[str, Any]] = [
        {"name": "aggregate", "shape": "stage 1", "seconds": seconds, "quartiles": [seconds, 1.1 * seconds]},
        {"name": "same bits", "passed": passed},
    ]
    content = {"state": "done", "seconds": 1.0, "problem": "", "records": lines}
    folder.mkdir()
    record = {"device": "cuda", "toy": toy, "commit": str(seconds), "date": "", "steps": {"kernels": content}}
    (folder / runner.RECORD).write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize(
    ("seconds", "passed", "code"), [(1.04, True, 0), (0.5, True, 0), (1.06, True, 1), (1.0, False, 1)]
)
def test_two_runs_side_by_side(
    seconds: float, passed: bool, code: int, ablate: Callable, tmp_path: Path
) -> None:
    _record(tmp_path / "a", 1.0, True), _record(tmp_path / "b", seconds, passed)
    done = ablate("bench", "compare", "a", "b")
    assert done.code == code, done.out
    assert ("does not pass any more: kernels: same bits" in done.out) == (not passed)
    assert ("aggregate, stage 1" in done.out) == (abs(seconds - 1) > 0.05)
    [line] = compare.compare(tmp_path / "a", tmp_path / "b").lines
    assert line.change == pytest.approx(seconds - 1) and line.spread == pytest.approx(0.05)


def test_refused_with_a_way_out(ablate: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    _record(tmp_path / "real", 1.0, True), _record(tmp_path / "toy", 1.0, True, toy=True)
    for arguments, expected in (
        (["acceptance", "--only", "kernel"], "did you mean 'kernels'"),
        (["acceptance", "--device", "cuda"], "ablate doctor"),
        (["compare", "real", "nowhere"], "is not a record of an acceptance run"),
        (["compare", "real", "toy"], "toy times mean nothing"),
        (["compare", "real", "real", "--threshold", "five"], "'five' is not a number of percent"),
    ):
        done = ablate("bench", *arguments)
        assert done.code == 2 and expected in done.err, arguments
    assert "aggregate" not in ablate("bench", "acceptance", "--list").out
