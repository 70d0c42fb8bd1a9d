"""The terminal: tables that fit, commands that are found from anywhere, Tab."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.cli.test_cli import COMMAND, LONG, TINY, folders, running  # noqa: F401  a fixture
from tests.cli.test_commands import EPILOGS
from tests.results.conftest import configuration, fabricate_run

from ablate import cli, commands
from ablate.cli.completion import complete
from ablate.execution import status as run_status
from ablate.execution.status import Status, Steps, expected_end
from ablate.store.files import read_json
from ablate.store.folder import FAILED, FINISHED, RunFolder
from ablate.store.identity import signature
from ablate.store.manifest import Manifest, PlannedRun
from ablate.training.progress import Silent

FACTORS = ["op", "op.channel.heads", "op/norm", "op.region.kernel"]
ERROR = (
    "RuntimeError: the operator returned (4, 1, 1, 32) where (4, 14, 14, 32) was expected, at every stride"
)


def study(runs_dir: Path, factors: int, count: int = 6) -> Manifest:
    runs = []
    for number in range(count):
        levels = dict(zip(FACTORS[:factors], ("lsa_neighborhood", "1x", "filter_norm", "7"), strict=False))
        name = signature(configuration(levels["op"], number))
        run = PlannedRun(name, f"pair{number}", number, levels)
        fabricate_run(runs_dir, run, 84.0, *((FAILED, ERROR) if number == 1 else (FINISHED, "")))
        line = {"epoch": 1, "images_per_second": 812.4, "data_wait": 0.02, "peak_memory_bytes": 2**30}
        RunFolder(runs_dir / run.signature).speed_path.write_text(json.dumps({**line, "mfu": 0.31}) + "\n")
        runs.append(run)
    found = Manifest("small", factors=FACTORS[:factors], runs=runs)
    found.save(runs_dir)
    return found


@pytest.mark.parametrize("factors", [1, 2, 4])
@pytest.mark.parametrize("width", [80, 120])
def test_status_fits_the_terminal(
    factors: int, width: int, ablate: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = study(tmp_path / "runs", factors)
    monkeypatch.setenv("COLUMNS", str(width))
    shown = ablate("status", "small").out
    table = shown[: shown.index("to run 1 run again")].splitlines()
    assert max(map(len, table)) <= width
    for run in planned.runs:
        assert any(run.signature in line.split() or f"{run.signature}:" in line for line in table)
    assert " ".join(ERROR.split()[:3]) in " ".join(shown.split())  # the reason is not lost with its column


def test_status_goes_into_a_pipe_whole_and_to_programs_as_json(
    ablate: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = study(tmp_path / "runs", 4, count=130)
    monkeypatch.delenv("COLUMNS")
    lines = ablate("status", "small").out.splitlines()
    rows = [line.split() for line in lines if "lsa_neighborhood" in line]
    assert {run.signature for run in planned.runs} == {
        word for row in rows for word in row if len(word) == 12
    }
    assert any(ERROR in line and "MFU" not in line for line in lines)
    found = json.loads(ablate("status", "small", "--json").out)
    assert [run["run"] for run in found["runs"]] == [run.signature for run in planned.runs]
    assert found["states"] == {FINISHED: 129, FAILED: 1}
    assert found["runs"][1]["note"] == ERROR
    assert json.loads(ablate("status", "--json").out)["studies"] == {"small": found["states"]}


def test_a_single_run_has_its_own_name_and_is_found_from_a_folder_below(
    ablate: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    single = ("train", *TINY, "recipe.epochs=1")
    first = ablate(*single)
    (folder,) = folders(tmp_path)
    assert "sweep-" not in first.out + first.err
    assert f"{folder.signature}: one run, op=lsa seed=0: finished" in ablate("status").out
    assert "1 finished" in ablate("status", folder.signature[:5]).out
    below = tmp_path / "analysis" / "deep"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    again = ablate(*single)
    assert "1 finished before" in again.err
    assert str(tmp_path / "runs") in again.err
    status = ablate("status", folder.signature)
    assert "1 finished" in status.out
    assert str(tmp_path / "runs") in status.err
    assert not list(below.iterdir())
    anew = ablate("retry", folder.signature, "--run", folder.signature, "--launcher", "inline")
    assert anew.code == 0, anew.err
    assert folder.status()["attempt"] == 2
    monkeypatch.setattr(os, "getuid", lambda: below.stat().st_uid + 1)  # somebody else's folder
    assert commands.default_runs_dir() == Path("runs")


def test_retry_after_ctrl_c_also_starts_what_never_began(
    running: Callable,  # noqa: F811
    ablate: Callable,
    tmp_path: Path,
) -> None:
    process = running("-m", "recipe.epochs=100000,1", *LONG[:2], "infra.tracking=none", "study.name=stopped")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    states = {folder.config()["recipe"]["epochs"]: folder for folder in folders(tmp_path)}
    assert "1 interrupted, 1 lost" in ablate("status", "stopped").out
    assert ablate("study", "remove", "stopped", "recipe.epochs=100000").code == 0
    done = ablate("retry", "stopped", "--launcher", "inline")
    assert done.code == 0, done.err
    assert states[1].finished()
    assert not states[100000].finished()


def test_the_end_of_a_run_is_known_from_its_first_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step takes a minute, each later one two seconds; an epoch has 100 of the 1000 steps."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    clock = [moment]
    monkeypatch.setattr(run_status, "now", lambda: clock[0].isoformat())
    monkeypatch.setattr(Steps, "SECONDS", 0.0)
    for done in (0, 400):
        status = Status(RunFolder(tmp_path))
        status.start({"recipe": {"epochs": 10}})
        steps = Steps(Silent(), status)
        steps.started("a run", 1000, done)
        assert expected_end(RunFolder(tmp_path).status()) is None
        clock[0] += timedelta(seconds=60)
        steps.stepped(1.0)
        for _ in range(5):
            clock[0] += timedelta(seconds=2)
            steps.stepped(1.0)
        record = RunFolder(tmp_path).status()
        assert record["step"] == done + 6
        end = expected_end(record)
        assert end is not None
        assert end == clock[0] + timedelta(seconds=2 * (1000 - done - 6))


def test_tab_leads_to_every_word_of_the_examples() -> None:
    for example in (line.strip() for text in EPILOGS.values() for line in text.splitlines()):
        if not example.startswith("ablate "):
            continue
        words = shlex.split(example)[1:]
        for place, word in enumerate(words):
            named = word.startswith("--") or (place == 0 and word.isalpha())
            if named and word not in ("--help",):
                found = complete(cli._parser(), [*words[:place], word[:3]])
                assert word in found, example


OVERRIDES = {
    "op=els": "op=elsa",
    "op=lsa,el": "op=lsa,elsa",
    "op/nor": "op/norm=",
    "op/norm=soft": "op/norm=softmax",
    "study=operators/sw": "study=operators/swin",
    "recipe.epo": "recipe.epochs=",
    "infra.compile=t": "infra.compile=true",
    "hydra/launcher=lo": "hydra/launcher=local",
}


@pytest.mark.parametrize("begun", OVERRIDES)
def test_tab_completes_overrides_and_hydra_accepts_them(begun: str) -> None:
    assert OVERRIDES[begun] in complete(cli._parser(), ["train", begun])


def test_a_region_that_was_chosen_has_its_settings_completed() -> None:
    def words(*given: str) -> list[str]:
        return complete(cli._parser(), ["train", *given, "op.region."])

    assert "op.region.size=" in words("op=lsa")
    assert "op.region.kernel=" in words("op=lsa", "op/region=neighborhood")
    assert "op.region.size=" not in words("op=lsa", "op/region=neighborhood")


SHELLS = {
    "bash": 'eval "$(ablate completion bash)"; COMP_LINE="{line}"; COMP_POINT=${{#COMP_LINE}}; '
    'COMP_WORDS=(ablate); _ablate 2>/dev/null; printf "%s\\n" "${{COMPREPLY[@]}}"',
    "fish": 'ablate completion fish | source; complete -C "{line}"',
    "zsh": "compdef() {{}}; _files() {{}}; "
    'compadd() {{ shift; [[ $1 == -S ]] && shift 2; shift; print -l -- "$@" }}; '
    'eval "$(ablate completion zsh)"; words=("${{(@s: :)${{:-{line}}}}}"); CURRENT=$#words; _ablate',
}


@pytest.mark.parametrize("shell", SHELLS)
def test_shells_offer_what_fits(shell: str, ablate: Callable, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    study(tmp_path / "runs", 1)
    program = tmp_path / "bin" / "ablate"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}

    def tab(line: str) -> list[str]:
        done = subprocess.run(
            [shell, "-c", SHELLS[shell].format(line=line)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return [word.rpartition("=")[2] for word in done.stdout.split()]

    assert tab("ablate status sm") == ["small"]
    assert tab("ablate train op=els") == ["elsa", "elsa_equation"]


def test_temporary_folders_of_the_wandb_client_do_not_outlive_it(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    code = "import os, signal; from ablate.execution import tracking; tracking.client(); "
    killed = subprocess.run(
        [sys.executable, "-c", code + "os.kill(os.getpid(), 9)"], env=environment, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert read_json(left / "process.json")
    alive = 'import time; print("ready", flush=True); time.sleep(300)'
    other = subprocess.Popen(
        [sys.executable, "-c", code + alive], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        (theirs,) = tmp_path.iterdir()
        assert theirs != left
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)
        assert list(tmp_path.iterdir()) == [theirs]
    finally:
        other.kill()
        other.wait()
