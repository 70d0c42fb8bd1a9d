"""`ablate bench acceptance` on a CPU: the steps of the day of the card, at toy size."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.autograd import DeviceType

import ablate as package
from ablate.bench import profiling
from ablate.bench.acceptance import archive, attempt, code, compare, resume, runner, selfcheck, steps, worker
from ablate.bench.acceptance import tests as gpu_tests
from ablate.bench.acceptance.steps import STEPS, Setting, Step

SECONDS = 8 * 60  # that a card may be had for
SLACK = 40
ROOT = Path(package.__file__).parents[2]
EXTRAS = ("wandb", "wandb_workspaces", "selenium", "jupytext", "statsmodels")  # not on the card's machine
REFUSAL = f"""
import sys

class Refusal:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS}:
            raise ModuleNotFoundError(f"{{name}} is not installed here", name=name)

sys.meta_path.insert(0, Refusal())
"""


def test_the_steps_fit_into_the_time_that_a_card_is_lent() -> None:
    assert steps.total(STEPS) <= SECONDS - SLACK
    assert len({step.name for step in STEPS}) == len(STEPS) == 8


def test_every_step_at_toy_size_and_the_same_command_again(
    ablate: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In processes that have only what the card's machine has."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(REFUSAL)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    (tmp_path / "numpy.py").write_text("raise ImportError('a file of the working folder')")
    done = ablate("bench", "acceptance", "--device", "cpu", "--out", "record")
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "record" / runner.RECORD).read_text())
    assert {name: step["state"] for name, step in record["steps"].items()} == {
        step.name: attempt.DONE for step in STEPS
    }
    records = {name: step["records"] for name, step in record["steps"].items()}
    assert all(line["passed"] for line in records["selfcheck"]) and len(records["selfcheck"]) == 8
    kernels = [line["name"] for line in records["kernels"]]
    assert {name.split()[0].strip(",") for name in kernels} >= {
        *(
            "aggregate_taps",
            "scores_taps",
            "aggregate_transpose_taps",
            "static_grad",
            "attention_forward",
            "query_gradient",
        ),
        *("key_gradients", "bias_gradient", "slide_forward", "slide_query_gradient", "slide_key_gradients"),
        *("slide_filter_gradient", "depthwise", "attention", "flex_attention", "copy"),
    }
    [refused] = [line for line in records["kernels"] if "seconds" not in line]
    assert "does not support backward on CPU" in refused["error"]
    assert kernels.index("slide_forward") < kernels.index("attention in windows, forward") < len(kernels) - 2
    assert kernels[-2:] == ["flex_attention, forward", "flex_attention, training"]
    shapes = [line["shape"] for line in records["models"] if line["name"].startswith("profile")]
    assert shapes == ["eager", "eager, scaled_dot_product_attention", "channels last"]
    assert {line["name"]: line.get("passed") for line in records["resume"]} == {
        "resume lsa": True,
        "all": None,
    }
    assert records["tests"][-1] == {
        **{"name": "all", "passed": True},
        "detail": f"{len(records['tests']) - 1} tests, pytest's exit code 0",
    }
    tested = {line["name"].partition("::")[0] for line in records["tests"][:-1]}
    assert tested == set(gpu_tests.marked(ROOT)) >= {"tests/kernels/test_gpu.py"}
    with zipfile.ZipFile(tmp_path / "record" / code.ARCHIVE) as saved:
        assert {Path(name).suffix for name in saved.namelist()} == {".cubin", ".ptx"}
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
    monkeypatch.setattr(attempt, "command", lambda step, setting, lines: [*command, str(lines)])
    return [Step("machine", 3, "versions")]


@pytest.mark.parametrize(
    ("code", "state", "problem"),
    [
        ("", attempt.DONE, ""),
        ("raise SystemExit('no card')", attempt.FAILED, "exit code 1: no card"),
        ("import os; os.abort()", attempt.FAILED, "exit code -6"),
        ("import time; time.sleep(60)", attempt.CUT_OFF, "more than 3 s"),
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
    assert bool(runner.failures(record)) == (state != attempt.DONE)
    said: list[str] = []
    runner.run(chosen, setting, say=said.append)
    assert ("done before" in said[0]) == (state == attempt.DONE)


@pytest.mark.parametrize("key", ["commit", "dirty", "kernels"])
def test_records_of_two_states_of_the_code_are_not_mixed(
    key: str, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = _steps_of(["true"], monkeypatch)
    runner.run(chosen, setting)
    path = setting.folder / runner.RECORD
    path.write_text(path.read_text().replace(f'"{key}": ', f'"{key}": "0" , "was": '))
    with pytest.raises(Exception, match=f"another run: {key} 0"):
        runner.run(chosen, setting)
    assert set(runner.run(chosen, setting, again=True)["steps"]) == {"machine"}


def test_a_repeat_that_fails_takes_nothing_from_what_was_measured(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, (state, expected) in enumerate(
        [("0", {"a": 0, "b": 0}), ("1", {"a": 1, "b": 0}), ("0", {"a": 2})]
    ):
        line = json.dumps({"name": "a", "seconds": number})
        other = json.dumps({"name": "b", "seconds": number}) if number == 0 else ""
        script = f"printf '%s\\n' '{line}' {other and repr(other)} >> $0; exit {state}"
        record = runner.run(_steps_of(["sh", "-c", script], monkeypatch), setting, again=True)
        records = record["steps"]["machine"]["records"]
        assert {line["name"]: line["seconds"] for line in records} == expected


WORKER = """
import os, subprocess, sys, time, types
from pathlib import Path
from ablate.bench.acceptance import worker

def run(setting):
    with open(setting.folder / "attempts", "a") as stream:
        stream.write(f"{sorted(setting.known)}\\n")
    if not setting.knows("one"):
        yield {"name": "one", "seconds": 1.0}
        process = subprocess.Popen(["sleep", "600"])
        yield {"name": "two", "seconds": 2.0, "passed": False}
        Path(setting.folder, "pids").write_text(f"{os.getpid()} {process.pid}")
        time.sleep(600)
    yield {"name": "three", "seconds": 3.0}

sys.modules["ablate.bench.acceptance.machine"] = types.SimpleNamespace(run=run)
worker.main(*sys.argv[1:])
"""
RUNNER = """
import sys
from ablate import cli
from ablate.bench.acceptance import attempt

usual = attempt.command
attempt.command = lambda *given: [sys.executable, "-c", sys.argv[1], *usual(*given)[4:]]
cli.main(["bench", "acceptance", "--device", "cpu", "--only", "machine", "--out", sys.argv[2]])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_runner_leaves_no_process_and_its_step_continues(
    number: signal.Signals, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = subprocess.Popen([sys.executable, "-c", RUNNER, WORKER, str(setting.folder)])
    try:
        pids = setting.folder / "pids"
        assert _soon(lambda: pids.exists() and len(pids.read_text().split()) == 2, 60)
        process.send_signal(number)
        code = process.wait(30)
    finally:
        process.kill()
    assert code == (130 if number == signal.SIGTERM else -number)
    assert _soon(lambda: not any(_runs(int(pid)) for pid in pids.read_text().split()), 10)
    if number == signal.SIGTERM:
        found = json.loads((setting.folder / runner.RECORD).read_text())["steps"]["machine"]
        assert found["state"] == attempt.CUT_OFF
        assert [line["name"] for line in found["records"]] == ["one", "two"]
    usual = attempt.command
    monkeypatch.setattr(attempt, "command", lambda *given: [sys.executable, "-c", WORKER, *usual(*given)[4:]])
    found = runner.run(STEPS[:1], setting)["steps"]["machine"]
    assert (found["state"], [line["name"] for line in found["records"]]) == (attempt.DONE, ["one", "three"])
    assert (setting.folder / "attempts").read_text() == "[]\n[('one', None)]\n"


def _soon(true: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    return true()


def _runs(pid: int) -> bool:
    """Return False for a zombie too, which waits for whatever adopted it."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_module_that_cannot_be_imported_is_recorded_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tests").mkdir()
    marked = "import pytest\n\n\n@pytest.mark" + ".gpu\ndef test_it(): "
    (tmp_path / "tests" / "test_bad.py").write_text("import nowhere\n" + marked + "pass\n")
    (tmp_path / "tests" / "test_good.py").write_text(marked + "assert False\n")
    (tmp_path / "tests" / "test_other.py").write_text("import nowhere\n\n\ndef test_it(): pass\n")
    files = gpu_tests.marked(tmp_path)
    assert files == ["tests/test_bad.py", "tests/test_good.py"]
    command = [*gpu_tests.pytest_command(files, 2), "--continue-on-collection-errors"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    found = {line["name"]: line for line in gpu_tests.outcomes(done.stdout.splitlines(keepends=True))}
    assert set(found) == {"tests/test_bad.py", "tests/test_good.py::test_it"}, done.stdout
    assert not any(line["passed"] for line in found.values())
    assert "No module named 'nowhere'" in found["tests/test_bad.py"]["detail"]
    alone = list(
        gpu_tests.outcomes(["tests/test_a.py::test_it[a-1] PASSED    [ 50%]\n", "FAILED tests/b.py\n"])
    )
    assert alone == [{"name": "tests/test_a.py::test_it[a-1]", "passed": True, "detail": "passed"}]


def test_verdicts_are_recorded_as_they_arrive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    received = threading.Event()

    def prepare(device: torch.device, *, on_verdict: Callable[..., None]) -> None:
        on_verdict("first", torch.float32, None)
        assert received.wait(10), "the first record came after the check had ended"
        on_verdict("second", torch.float32, "differs")

    monkeypatch.setattr(selfcheck.verdicts, "prepare", prepare)
    monkeypatch.setattr(selfcheck.verdicts, "MODULES", ("module",))
    monkeypatch.setattr(selfcheck.verdicts, "DTYPES", (torch.float32,))
    known = {"first": None, "second": "differs", "on disk": None}
    monkeypatch.setattr(selfcheck.verdicts, "of", lambda *given: known)
    found = {}
    for line in selfcheck.run(Setting(torch.device("cpu"), False, tmp_path)):
        found[line["name"].partition(" torch")[0]] = line.get("passed")
        received.set()
    assert found == {"first": True, "second": False, "on disk": True, "all": None}


def test_steps_that_stand_for_training_compute_as_training_does() -> None:
    assert {step.name for step in STEPS if step.as_trained} == {"operators", "models"}
    for step in STEPS:
        torch.use_deterministic_algorithms(False)
        try:
            worker.set_up(torch.device("cpu"), step.as_trained)
            assert torch.are_deterministic_algorithms_enabled() == step.as_trained
        finally:
            torch.use_deterministic_algorithms(False)


def test_a_profile_on_a_card_counts_every_kernel_once() -> None:
    def event(key: str, device_type: DeviceType, time: float) -> SimpleNamespace:
        return SimpleNamespace(key=key, device_type=device_type, self_device_time_total=time)

    events = [
        *(event("aten::mm", DeviceType.CPU, 3.0), event("gemm<float>", DeviceType.CUDA, 3.0)),
        event("triton", DeviceType.CUDA, 1.0),
    ]
    assert profiling.largest(events, torch.device("cuda"), 2) == {"gemm<float>": 0.75, "triton": 0.25}


def test_files_are_added_to_an_archive_and_replaced(tmp_path: Path) -> None:
    for members in ({"a": b"1"}, {"b": b"2"}, {"a": b"3"}):
        archive.add(tmp_path / "a.zip", members)
    with zipfile.ZipFile(tmp_path / "a.zip") as found:
        assert {name: found.read(name) for name in found.namelist()} == {"a": b"3", "b": b"2"}
    assert len(found.namelist()) == 2 and list(tmp_path.iterdir()) == [tmp_path / "a.zip"]


def test_the_hottest_kernels_are_different_ones() -> None:
    every = code.hottest(90, 1000)
    assert len(every) >= code.MOST and list(code.hottest(90, code.MOST)) == list(every)[: code.MOST]


def test_a_kernel_whose_resources_cannot_be_read_is_recorded_and_its_code_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*given: object) -> None:
        raise FileNotFoundError("no cuobjdump here")

    asm = {"cubin": b"machine code", "ptx": "text"}
    monkeypatch.setattr(code.aot, "compiled_for", lambda *given: SimpleNamespace(asm=asm))
    monkeypatch.setattr(code.aot, "measure", measure)
    first, last = code.run(Setting(torch.device("cpu"), True, tmp_path))
    assert (first["passed"], first["detail"]) == (False, "FileNotFoundError: no cuobjdump here")
    assert (last["name"], last["passed"]) == (code.CHECKER, None)
    with zipfile.ZipFile(tmp_path / code.ARCHIVE) as saved:
        assert [saved.read(name) for name in saved.namelist()] == [b"machine code", b"text"]


def test_a_training_that_fails_is_reported_with_its_last_line(tmp_path: Path) -> None:
    output = tmp_path / "output.txt"
    for line, seconds, expected in (
        ("raise SystemExit('no card')", 60, "exit code 1: no card"),
        ("import time; time.sleep(60)", 0, "too slow"),
    ):
        with output.open("wb") as stream:
            process = subprocess.Popen([sys.executable, "-c", line], stderr=stream)
        training = resume.Training(process, tmp_path / "lsa-whole", output, time.monotonic() + seconds)
        with pytest.raises(resume.FailedTrainingError, match=expected):
            training.ended(0)
        assert process.returncode is not None


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
        (["acceptance", "--limit", "0"], "'0' is not a factor"),
        (["compare", "real", "nowhere"], "is not a record of an acceptance run"),
        (["compare", "real", "toy"], "toy times mean nothing"),
        (["compare", "real", "real", "--threshold", "five"], "'five' is not a number of percent"),
    ):
        done = ablate("bench", *arguments)
        assert done.code == 2 and expected in done.err, arguments
    limits = [ablate("bench", "acceptance", "--list", "--limit", factor).out.split() for factor in "13"]
    assert [int(words[words.index("in") + 2]) for words in (x[-6:] for x in limits)] == [
        steps.total(STEPS),
        3 * steps.total(STEPS),
    ]
