"""Runs that wait: for a launcher that lives, or for nobody; and launchers that meet a full disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ablate.execution import serving
from ablate.execution.execute import execute
from ablate.execution.outcome import Outcome
from ablate.execution.serving import served
from ablate.launch import inline
from ablate.launch.local.pool import WorkerPool
from ablate.launch.study import start
from ablate.launch.submission import Submission
from ablate.store import manifest
from ablate.store.files import read_json, write_json
from ablate.store.folder import RunFolder, dump
from ablate.store.identity import signature
from ablate.store.manifest import Manifest, PlannedRun
from ablate.studies import retry, states

LAUNCHER = {"device": "cpu", "devices": 1, "threads": 1}


@pytest.fixture
def waiting(tmp_path: Path) -> list[str]:
    """Three runs that a launcher has frozen, and not started."""
    runs = []
    for seed in range(3):
        config = {"op": {"name": "lsa"}, "recipe": {}, "seed": seed, "infra": LAUNCHER, "study": {}}
        folder = RunFolder(tmp_path / signature(config))
        folder.path.mkdir()
        folder.config_path.write_text(dump(config))
        created = {"created": "2026-01-01T00:00:00+00:00", "updated": "2026-01-01T00:00:00+00:00"}
        write_json(folder.status_path, {"state": "pending", "attempt": 0, "epoch": 0, "epochs": 2, **created})
        runs.append(PlannedRun(folder.signature, "pair", seed, {}))
    Manifest("study", runs=runs, command="ablate train").save(tmp_path)
    return [run.signature for run in runs]


def test_a_pending_run_is_lost_unless_a_living_launcher_starts_it(waiting: list[str], tmp_path: Path) -> None:
    first, second, third = waiting
    assert states.of_study(tmp_path, "study").counts == {"lost": 3}
    with served(tmp_path, [first, second]):
        overview = states.of_study(tmp_path, "study")
        assert [standing.state for standing in overview.runs] == ["pending", "pending", "lost"]
        assert overview.active
        (path,) = (tmp_path / serving.FOLDER).glob("*.json")
        killed = {**read_json(path), "born": "1"}
        with served(tmp_path, [third]):
            assert states.of_study(tmp_path, "study").counts == {"pending": 3}
    assert not list((tmp_path / serving.FOLDER).glob("*.json"))
    write_json(path, killed)
    assert states.of_study(tmp_path, "study").counts == {"lost": 3}
    with served(tmp_path, []):
        assert not path.exists()  # what a killed launcher left


def test_a_retry_includes_what_waits_for_nobody(
    waiting: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def launch(submission: Submission, console: Console) -> dict[str, Outcome]:
        seen.extend(submission.ready)
        assert states.of_study(tmp_path, "study").counts == {"pending": 3}  # by this launcher
        return {name: Outcome("finished") for name in submission.ready}

    monkeypatch.setattr("ablate.launch.resubmit.read_infra", lambda infra: infra)
    chosen = retry.select(tmp_path, "study")
    assert retry.last_launcher(tmp_path, "study") == "local"
    assert retry.retry(tmp_path, "study", chosen, {}, launch, print) == 0
    assert seen == waiting


@pytest.fixture
def full(waiting: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as the system does: without a path

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.usefixtures("full")
def test_a_full_disk_is_one_message_with_a_path_and_no_further_run(
    waiting: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    config: dict[str, Any] = {"infra": LAUNCHER, "recipe": {}, "op": {"name": "lsa"}}
    outcome = execute(tmp_path / waiting[0], config)
    assert outcome.no_room
    assert str(tmp_path / waiting[0]) in outcome.detail
    planned = manifest.load(tmp_path, "study")
    submission = Submission(tmp_path, planned, dict.fromkeys(waiting, config), ready=waiting)
    assert start(submission, inline.launch) == 1
    printed = capfd.readouterr().err
    assert printed.count("No space left on device") == 1
    assert "2 runs were not started" in printed
    assert f"ablate retry study --runs-dir {tmp_path}" in printed


def test_workers_take_no_run_after_a_full_disk(
    waiting: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WorkerPool, "_ask", lambda *_: Outcome("failed", "full", no_room=True))
    pool = WorkerPool(tmp_path, waiting, 1, {"devices": 1, "threads": 1, "device": "cpu"})
    assert len(pool.run(lambda event: None, lambda: None)) == 1
