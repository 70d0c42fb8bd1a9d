"""An operator that is edited between two runs: seen by every verb, and computed anew on request."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from tests import command

from ablate.execution.attempts import set_aside
from ablate.execution.environment import code_of
from ablate.store import code
from ablate.store.folder import RunFolder

OPERATOR = '''
from torch import nn
from ablate.ops import register

@register("mine", paper="-", year=2026, channel_setting="-", spatial_processing="-", version="1")
class Mine(nn.Module):
    """A layer."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layer = nn.Linear(dim, dim)

    def forward(self, x):
        return self.layer(x)
'''
TINY = (
    *("data=synthetic", "recipe=debug", "recipe.epochs=1", "study.name=s"),
    *("infra.tracking=none", "infra.threads=1", "infra.device=cpu"),
)


@pytest.fixture
def typed(tmp_path: Path) -> object:
    """Run `ablate` as a user types it, in a process of its own; return its exit code and output."""

    def run(*arguments: str) -> tuple[int, str]:
        environment = {"ABLATE_OPERATORS": "mine", "PYTHONPATH": str(tmp_path), "COLUMNS": "200"}
        done = command.run(*arguments, folder=tmp_path, environment=environment)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout + done.stderr

    return run


def test_an_edited_operator_end_to_end(typed, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OPERATOR)
    assert typed("train", "-m", "op=mine,dwconv", "seed=0,1", *TINY)[0] == 0
    file.write_text(OPERATOR.replace('"""A layer."""', '"""Another docstring."""  # and a comment'))
    assert "stale" not in typed("status", "s")[1]
    file.write_text(OPERATOR.replace("self.layer(x)", "2 * self.layer(x)"))
    code, said = typed("status", "s")
    assert (code, said.count("stale: mine changed since")) == (0, 2)
    assert "4 finished (2 of them stale)" in said
    assert "ablate retry s --stale" in said
    configs = (tmp_path / "runs").glob("*/config.yaml")
    run = next(path.parent.name for path in configs if "name: mine\n" in path.read_text())
    assert "which draws it: mine changed since" in typed("look", run)[1]
    assert typed("report", "s")[0] == 0  # of one code yet: that of before
    code, said = typed("train", "-m", "op=mine,dwconv", "seed=0,1,2", *TINY)
    assert code == 0
    assert "2 of the runs finished before were computed by other code: mine changed since" in said
    for verb in ("report", "collect"):
        code, said = typed(verb, "s")
        assert code == 2
        assert "computed by different code: mine" in said
        assert "ablate retry s --stale" in said
        assert typed(verb, "s", "--mixed-code")[0] == 0
    page = (tmp_path / "runs/studies/s/report/index.html").read_text()
    assert "Runs were computed by different code" in page
    assert "op=mine" in page or "mine, seed 2" in page
    runs = {path.parent.name: path for path in (tmp_path / "runs").glob("*/result.json")}
    mine = [
        name
        for name in runs
        if "mine" in (RunFolder(runs[name].parent).environment() or {})["code"]["digests"]
    ]
    seeds = {RunFolder(runs[name].parent).config()["seed"]: name for name in mine}
    difference = typed("diff", seeds[0], seeds[2])[1]
    assert "mine" in difference.partition("code and data")[2]
    before = runs[seeds[0]].read_bytes()
    assert typed("retry", "s", "--stale")[0] == 0
    kept = runs[seeds[0]].parent / "attempts" / "1"
    assert (kept / "result.json").read_bytes() == before
    assert (kept / "checkpoint.pt").exists()
    assert runs[seeds[0]].read_bytes() != before
    assert not (runs[seeds[2]].parent / "attempts").exists()
    assert "stale" not in typed("status", "s")[1]
    assert typed("report", "s")[0] == 0
    assert typed("verify", "s")[0] == 0
    code, said = typed("retry", "s", "--run", seeds[2])
    assert code == 0, said
    assert (runs[seeds[2]].parent / "attempts" / "1" / "result.json").exists()
    file.unlink()  # a file that is gone is not compared
    assert "stale" not in typed("status", "s")[1]


DATA = """
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ablate import data

@data.register("filed", version="1")
@dataclass(frozen=True)
class Filed(data.InMemorySet):
    mean, std = (0.5,), (0.3,)

    @property
    def info(self):
        return data.DataInfo(2, (1, 28, 28), 32)

    def files(self, data_root):
        return [data_root / "images.npy"]

    def read(self, storage):
        images = np.load(storage.data_root / "images.npy")
        split = data.Labelled(images, np.arange(len(images)) % 2)
        return data.LabelledSplits(split, split, split)
"""


def test_data_that_changed_are_seen_and_the_way_out_leads_out(typed, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OPERATOR + DATA)
    images = tmp_path / "images.npy"
    np.save(images, np.zeros((32, 1, 28, 28), np.uint8))
    command = (
        "train",
        "-m",
        "op=mine,dwconv",
        "data=filed",
        "recipe=debug",
        "recipe.epochs=1",
        "study.name=s",
    )
    command += (f"infra.data_root={tmp_path}", *TINY[4:])
    code, said = typed(*command, "seed=0")
    assert code == 0, said
    assert "stale" not in typed("status", "s")[1]
    np.save(images, np.ones((32, 1, 28, 28), np.uint8))
    assert typed("status", "s")[1].count("stale: data filed changed since") == 2
    assert typed(*command, "seed=0,1")[0] == 0
    code, said = typed("report", "s")
    assert code == 2
    assert "data filed" in said
    (way_out,) = re.findall(r"`ablate (retry s .*?)`", said)
    assert typed(*way_out.split())[0] == 0
    assert typed("report", "s")[0] == 0
    (tmp_path / "mine.py").write_text(
        (OPERATOR + DATA).replace('"filed", version="1"', '"filed", version="2"')
    )
    assert typed("status", "s")[1].count("stale: mine changed since") == 4


def test_a_run_that_resumes_with_other_code_says_so_and_stays_stale(typed, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OPERATOR)
    one = [word for word in TINY if "epochs" not in word] + ["recipe.epochs=2", "op=mine"]
    interrupting = OPERATOR.replace(
        "        return self.layer(x)",
        "        global calls\n        calls += 1\n        if calls == 60:\n"
        "            raise KeyboardInterrupt\n        return self.layer(x)",
    )
    file.write_text("calls = 0\n" + interrupting)
    code, _ = typed("train", *one)
    assert code == 130
    file.write_text(OPERATOR)
    code, said = typed("train", *one)
    assert code == 0, said
    assert "the run began with other code: mine" in said
    assert "stale: mine changed since" in typed("status", "s")[1]


@pytest.mark.parametrize("renames", range(8))
def test_a_result_is_never_lost_when_setting_it_aside_is_cut_off(
    renames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every rename; what a later start finds is either whole or nothing that it could resume."""
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    status = {"state": "finished", "attempt": 1}
    files = {"checkpoint.pt": b"weights", "checkpoint.previous.pt": b"before", "metrics.jsonl": b"lines"}
    files |= {"result.json": b'{"test_top1": 1.0}', "environment.json": b"{}", "digests.json": b"{}"}
    for name, data in {**files, "status.json": json.dumps(status).encode()}.items():
        (folder.path / name).write_bytes(data)
    done, rename = [], Path.rename

    def cut_off(self: Path, target: Path) -> Path:
        if len(done) == renames:
            raise OSError("cut off")
        done.append(self.name)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", cut_off)
    if renames < len(files):
        with pytest.raises(OSError, match="cut off"):
            set_aside(folder)
        assert folder.state() == "finished"
        if "result.json" in done:
            assert not list(folder.path.glob("checkpoint*"))
    monkeypatch.setattr(Path, "rename", rename)
    set_aside(folder)
    kept = {path.name: path.read_bytes() for path in folder.path.glob("attempts/*/*")}
    assert {name: kept[name] for name in files} == files
    assert folder.state() == "pending"
    assert {path.name for path in folder.path.iterdir() if path.is_file()} <= {"status.json", ".claim.lock"}


def test_a_run_that_resumes_from_code_that_was_not_recorded_is_stale() -> None:
    now = code_of(["ablate.ops.local"], {}, None, resumes=False)
    assert "resumed" not in now
    for earlier in (None, {"versions": {}}):
        record = {"code": code_of(["ablate.ops.local"], {}, earlier, resumes=True)}
        assert code.changed(record) == [code.UNRECORDED]
        again = {"code": code_of(["ablate.ops.local"], {}, record, resumes=True)}
        assert code.changed(again) == [code.UNRECORDED]
    assert code.changed({"code": code_of(["ablate.ops.local"], {}, {"code": now}, resumes=True)}) == []


def test_a_process_records_the_text_that_it_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "loaded_once.py"
    file.write_text("X = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("loaded_once")
    before = code.collect(["loaded_once"])
    for text in ("X = 2  # another\n", "X = (\n", "# -*- coding: latin-1 -*-\n"):
        file.write_text(text)
        assert code.collect(["loaded_once"]) == before
        assert code.changed({"code": before._asdict()}) == ["loaded_once"]


def test_sources_in_any_encoding_have_a_digest(tmp_path: Path) -> None:
    for name, data in {
        "latin": "# -*- coding: latin-1 -*-\nX = 'é'\n".encode("latin-1"),
        "marked": "X = 1\n".encode("utf-8-sig"),
    }.items():
        (tmp_path / f"{name}.py").write_bytes(data)
        assert code.digest_of(tmp_path / f"{name}.py") is not None
    (tmp_path / "broken.py").write_text("X = (\n")
    assert code.digest_of(tmp_path / "broken.py") is None
