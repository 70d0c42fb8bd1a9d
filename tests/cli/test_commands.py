"""Commands in help and messages: each parses when pasted into a shell, and means its own folder."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from tests.printed import commands_in

from ablate import cli, commands
from ablate.execution.outcome import Outcome
from ablate.launch.study import start
from ablate.launch.submission import Submission
from ablate.store.folder import RunFolder
from ablate.store.manifest import Manifest, PlannedRun


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from parsers(sub)


EPILOGS = {parser.prog: parser.epilog for parser in parsers(cli._parser()) if parser.epilog}


@pytest.mark.parametrize("verb", EPILOGS)
def test_the_examples_of_the_help_parse(verb: str) -> None:
    examples = [line.strip() for line in EPILOGS[verb].splitlines() if line.strip().startswith("ablate ")]
    assert examples
    for example in examples:
        words = shlex.split(example)[1:]
        if words[0] != "train":
            cli.parse(words)


def test_settings_are_found_before_between_and_after_options(capsys: pytest.CaptureFixture[str]) -> None:
    for order in (
        "--failed infra.a=1 infra.b=2",
        "infra.a=1 --failed infra.b=2",
        "infra.a=1 infra.b=2 --failed",
    ):
        parsed = cli.parse(["retry", "quick", *order.split()])
        assert (parsed.study, parsed.failed, parsed.overrides) == ("quick", True, ["infra.a=1", "infra.b=2"])
    with pytest.raises(SystemExit):
        cli.parse(["status", "quick", "infra.a=1"])
    assert "unrecognized arguments: infra.a=1" in capsys.readouterr().err


PLACES = ("runs", "with blank/runs", "with, comma/{x}", "it's/runs", "-leading/runs")


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("below", ["", "sub", "with blank"])
def test_a_command_means_its_folder_wherever_it_is_printed(
    name: str, below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs_dir = tmp_path / name
    (tmp_path / below).mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / below)
    for seen in (runs_dir, Path(os.path.relpath(runs_dir))):
        _, *words = shlex.split(commands.command("status", "a", runs_dir=seen))
        assert cli.parse(words).runs_dir.resolve() == runs_dir
        recorded = "ablate train -m first\nablate train -m op=lsa,na infra.runs_dir=elsewhere 'a=\"x y\"'"
        _, verb, *words = shlex.split(commands.train_again(recorded, seen))
        assert (verb, words[:2], words[2]) == ("train", ["-m", "op=lsa,na"], 'a="x y"')
        given = [OverridesParser.create().parse_override(word) for word in words[3:]]
        found = [override.value() for override in given if override.key_or_group == "infra.runs_dir"]
        assert Path(str(*found) if found else "runs").resolve() == runs_dir


def outcome(state: str, **more: Any) -> Outcome:
    return Outcome(state, "[Errno 28] No space left on device: '/x'" if more else "why", **more)


@pytest.mark.parametrize(
    "outcomes",
    [
        {"a": outcome("finished"), "b": outcome("finished")},
        {"a": outcome("failed"), "b": outcome("superseded")},
        {"a": outcome("failed", no_room=True)},
        {"a": outcome("pending"), "b": outcome("pending")},
        {"a": outcome("damaged"), "b": outcome("finished")},
    ],
)
def test_what_a_launcher_prints_parses_and_points_to_files_that_have_something_to_read(
    outcomes: dict[str, Outcome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    runs_dir = tmp_path / "with blank" / "runs"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "40")
    planned = [PlannedRun(name, "", 0, {"op": name}) for name in "ab"]
    for run in planned:
        (runs_dir / run.signature).mkdir(parents=True)
    submission = Submission(runs_dir, Manifest("study", runs=planned), {"a": {}, "b": {}}, ready=["a", "b"])
    RunFolder(runs_dir / "a").error_path.write_text("Traceback\n")
    RunFolder(runs_dir / "b").error_path.write_text("")
    code = start(submission, lambda *_: outcomes)
    printed = capfd.readouterr().err
    (words,) = commands_in(printed)
    assert cli.parse(words[1:]).runs_dir.resolve() == runs_dir
    states = {one.state for one in outcomes.values()}
    assert code == (1 if states & {"failed", "damaged"} else 0)
    for line in printed.splitlines():
        if line.strip().startswith("→") and "ablate " not in line:
            assert Path(line.strip(" →")).read_text().strip()
    if "superseded" in states:
        assert code == 1
        assert start(submission, lambda *_: {"a": outcome("superseded")}) == 75
    if any(one.no_room for one in outcomes.values()):
        assert printed.count("No space left on device") == 1
        assert "1 runs were not started" in printed
