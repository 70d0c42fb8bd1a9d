"""Studies as one file: the same runs on the other side, or nothing at all."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ablate.errors import UserError
from ablate.store.folder import RunFolder
from ablate.studies import archive

TINY = ("data=synthetic", "recipe=debug", "recipe.epochs=1", "infra.threads=1", "infra.device=cpu")
SWEEP = ("train", "-m", "op=lsa,dwconv", "seed=0,1", *TINY, "study.name=small")


def files(runs: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(runs)): path.read_bytes()
        for path in runs.glob("*/*")
        if path.name in archive.FILES and path.name != "checkpoint.pt"
    }


def rewritten(source: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The archive with other entries, of which contents.json is what `change` makes of it."""
    with zipfile.ZipFile(source) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    change(entries)
    with zipfile.ZipFile(target, "w") as new:
        for name, data in entries.items():
            new.writestr(name, data)
    return target


def listed(entries: dict[str, bytes], name: str, data: bytes) -> None:
    """Put in an entry, and list it as an export would."""
    contents = json.loads(entries[archive.CONTENTS])
    contents["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    entries[name], entries[archive.CONTENTS] = data, json.dumps(contents).encode()


def test_a_study_goes_through_one_file(ablate, tmp_path: Path) -> None:
    assert ablate(*SWEEP).code == 0
    runs, there, file = tmp_path / "runs", tmp_path / "there", tmp_path / "small.zip"
    said = ablate("export", "small", str(file))
    assert said.code == 0 and "4 runs" in said.out
    assert ablate("export", "small", str(file)).code == 2  # it exists
    said = ablate("import", str(file), "--runs-dir", str(there))
    assert said.code == 0 and "4 runs added" in said.out and "ablate report small" in said.out
    assert files(there) == files(runs) and not list(there.glob(".import*"))
    assert ablate("report", "small", "--runs-dir", str(there)).code == 0
    assert ablate("verify", "small", "--runs-dir", str(there)).code == 0
    assert "0 runs added" in ablate("import", str(file), "--runs-dir", str(there)).out
    assert "4 finished before" in ablate(*SWEEP, "infra.runs_dir=there").err

    # one seed more here: the study there gets what it lacks
    assert ablate(*(word.replace("seed=0,1", "seed=0,1,2") for word in SWEEP)).code == 0
    assert ablate("export", "small", str(tmp_path / "more.zip"), "--checkpoints").code == 0
    said = ablate("import", str(tmp_path / "more.zip"), "--runs-dir", str(there))
    assert "2 runs added" in said.out and "4 runs here already" in said.out
    assert "6 finished" in ablate("status", "small", "--runs-dir", str(there)).out
    assert len(list(there.glob("*/checkpoint.pt"))) == 2

    # a single run
    with zipfile.ZipFile(file) as archived:
        one = archived.namelist()[0].split("/")[0]
    assert ablate("export", one[:6], str(tmp_path / "one.zip")).code == 0
    alone = tmp_path / "alone"
    assert "1 run added" in ablate("import", str(tmp_path / "one.zip"), "--runs-dir", str(alone)).out
    assert [path.parent.name for path in alone.glob("*/result.json")] == [one]

    # what is not as it was exported is refused whole
    outside = tmp_path / "outside"

    def escaping(entries: dict[str, bytes]) -> None:
        listed(entries, "../../outside", b"x")

    def foreign(entries: dict[str, bytes]) -> None:
        listed(entries, f"{one}/evil.py", b"x")

    def other_result(entries: dict[str, bytes]) -> None:
        name = f"{one}/result.json"
        listed(entries, name, entries[name].replace(b"test_top1", b"test_top9"))

    def flipped(entries: dict[str, bytes]) -> None:
        name = f"{one}/metrics.jsonl"
        entries[name] = entries[name].replace(b"1", b"2")

    def unlisted(entries: dict[str, bytes]) -> None:
        entries[f"{'0' * 12}/result.json"] = b"{}"

    empty = tmp_path / "empty"
    said_of = {
        escaping: "does not belong to a run",
        foreign: "does not belong to a run",
        other_result: "cannot be imported",
        flipped: "has changed|have changed",
        unlisted: "other files than it lists",
    }
    for change, expected in said_of.items():
        bad = rewritten(file, tmp_path / "bad.zip", change)
        said = ablate("import", str(bad), "--runs-dir", str(empty))
        assert said.code == 2 and re.search(expected, said.err), (change.__name__, said.err)
        assert not outside.exists() and (not empty.exists() or not list(empty.iterdir())), change.__name__
    for data in (b"", b"not a zip", file.read_bytes()[:-200]):
        (tmp_path / "bad.zip").write_bytes(data)
        assert ablate("import", str(tmp_path / "bad.zip"), "--runs-dir", str(empty)).code == 2

    # what contradicts a result that is there, or damaged runs
    result = RunFolder(there / one).result_path
    result.write_text(result.read_text().replace("test_top1", "test_top9"))
    with pytest.raises(UserError, match=f"^run {one} is already in"):
        archive.load(file, there)
    with pytest.raises(UserError, match="damaged"):
        archive.export(there, "small", tmp_path / "damaged.zip")
    assert not (tmp_path / "damaged.zip").exists()
    shutil.rmtree(there)
