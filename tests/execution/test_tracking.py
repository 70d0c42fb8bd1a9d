"""Pages in W&B: the real client against a double of its server on the loopback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests import command
from tests.execution.wandb_double import Double

from ablate.store.folder import RunFolder

KEY = "0123456789" * 4
STUDY = ("recipe=debug", "data=synthetic", "data.train=64", "study.name=small", "study.question=Which?")


@pytest.fixture
def server() -> Iterator[Double]:
    double = Double()
    yield double
    double.close()


def environment(server: Double) -> dict[str, str]:
    return {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY, "COLUMNS": "200"}


@pytest.fixture
def ablate(server: Double, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return command.run(*arguments, folder=tmp_path, environment=environment(server))

    return run


def test_a_study_is_sent_once_and_what_is_new_later(ablate: Callable, server: Double, tmp_path: Path) -> None:
    trained = ablate("train", "-m", "op=lsa,dwconv", *STUDY, "infra.tracking=none")
    assert trained.returncode == 0, trained.stderr
    assert not server.pages

    server.down = True
    begun = time.monotonic()
    refused = ablate("sync", "small")
    assert refused.returncode == 2
    assert "W&B did not take all of it" in refused.stderr
    assert "the same command continues" in refused.stderr
    assert time.monotonic() - begun < 60

    server.down, server.doomed = False, True
    impatient = (
        "from ablate.cli import main; from ablate.studies import sync; sync.UPLOAD_SECONDS = 5; main()"
    )
    lost = subprocess.run(
        [sys.executable, "-c", impatient, "sync", "small"],
        cwd=tmp_path,
        env={**os.environ, **environment(server)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert lost.returncode == 2
    assert (
        "W&B did not take all of it" in lost.stderr
    )  # where it stalls first is a matter of the machine's load
    assert not list(tmp_path.rglob("wandb.json"))
    server.down = server.doomed = False

    sent = ablate("sync", "small")
    assert sent.returncode == 0, sent.stderr
    assert "small: 2 sent, 0 sent before" in sent.stdout
    folders = [RunFolder(path.parent) for path in (tmp_path / "runs").glob("*/config.yaml")]
    assert set(server.pages) == {folder.signature for folder in folders}
    for folder in folders:
        page = server.pages[folder.signature]
        assert page.project == "ablate"
        assert page.fields["groupName"] == "small"
        assert page.fields["jobType"] == "train"
        assert page.fields["notes"] == "Which?"
        assert folder.config()["op"]["name"] in page.fields["tags"]
        assert page.config["op"] == folder.config()["op"]
        assert "infra" not in page.config
        assert [line["train_loss"] for line in page.history] == [m["train_loss"] for m in folder.metrics()]
        assert [line["_step"] for line in page.history] == [1, 2]
        assert page.summary["test_top1"] == folder.result()["test_top1"]
        assert page.summary["state"] == "finished"
        assert page.config["condition"] == folder.config()["op"]["name"]
        assert page.exit_code == 0
    for file in (tmp_path / "runs").rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file

    of = {page.config["condition"]: page.summary for page in server.pages.values()}
    assert of["dwconv"]["paired_difference"] == of["dwconv"]["test_top1"] - of["lsa"]["test_top1"]
    assert "paired_difference" not in of["lsa"]  # the baseline

    assert ablate("report", "small").returncode == 0
    again = ablate("sync", "small")
    assert "small: 0 sent, 2 sent before; report sent" in again.stdout, again.stderr
    assert all(len(server.pages[folder.signature].history) == 2 for folder in folders)
    (report,) = server.artifacts.values()
    page = (tmp_path / "runs" / "studies" / "small" / "report" / "index.html").read_bytes()
    assert report["index.html"] == page
    assert {"table.md", "results.csv", "wandb_manifest.json"} < set(report)
    assert [page.fields["jobType"] for page in server.pages.values()].count("report") == 1
    offline = ablate("dashboard", "small", "--offline")
    assert offline.returncode == 0, offline.stderr
    text = (tmp_path / "runs" / "studies" / "small" / "workspace.json").read_text()
    for word in ("paired_difference", "factors.value.op", "condition", "validation_top1", "small", "Which?"):
        assert word in text, word
    assert json.loads(text)["section"]["panelBankConfig"]["sections"][0]["name"] == "Paired differences"
    online = ablate("dashboard", "small")
    assert online.returncode == 0, online.stderr
    (view,) = server.views
    assert re.sub(r'"__id__": "\w+"', "", json.dumps(view)) == re.sub(
        r'"__id__": "\w+"', "", json.dumps(json.loads(text))
    )
    server.artifacts.clear()
    assert "report sent before" in ablate("sync", "small").stdout
    assert not server.artifacts


def test_a_run_that_goes_on_continues_its_page(ablate: Callable, server: Double, tmp_path: Path) -> None:
    one = ("train", "op=dwconv", *STUDY, "infra.tracking=wandb")
    assert ablate(*one).returncode == 0
    (page,) = server.pages.values()
    assert [line["epoch"] for line in page.history] == [1, 2]
    folder = RunFolder(tmp_path / "runs" / page.name)
    folder.result_path.unlink()  # as if it had been stopped before its test
    again = ablate(*one)
    assert again.returncode == 0, again.stderr
    assert folder.finished()
    assert len(server.pages) == 1
    assert [line["epoch"] for line in page.history] == [1, 2]
    assert page.summary["test_top1"] == folder.result()["test_top1"]
    assert "0 sent before" in ablate("sync", "small").stdout  # its page is complete, and is not sent twice
    assert [line["epoch"] for line in page.history] == [1, 2]
