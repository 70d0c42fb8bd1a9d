"""Files are written whole or not at all, and read as far as they are whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ablate.store import files
from ablate.store.folder import RunFolder, dump, load
from ablate.store.identity import signature


def test_a_full_disk_leaves_the_previous_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "status.json"
    files.write_json(path, {"state": "running"})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_json(path, {"state": "finished"})
    assert files.read_json(path) == {"state": "running"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["status.json"]


def test_a_device_that_is_full_for_real(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")

    def write(stream: object) -> None:
        Path("/dev/full").write_bytes(b"x")

    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="No space left"):
        files.write_atomically(path, write)
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("tail", [b'{"epoch": 3, "lo', b'{"epoch": 3}', b"\xff\xfe\n", b"[1]\n"])
def test_lines_are_read_as_far_as_they_are_whole(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    for epoch in (1, 2):
        files.append_json_line(path, {"epoch": epoch})
    with path.open("ab") as stream:
        stream.write(tail)
    assert files.read_json_lines(path) == ([{"epoch": 1}, {"epoch": 2}], 1)


def test_not_a_number_never_reaches_a_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "result.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_configurations_share_what_was_parsed_and_nothing_that_is_changed(tmp_path: Path) -> None:
    config = {"op": {"name": "lsa", "terms": ["content"]}, "seed": 0, "infra": {"launcher": {"memory": None}}}
    folder = RunFolder(tmp_path / signature(config))
    folder.path.mkdir()
    folder.config_path.write_text(dump(config))
    first = folder.config()
    first["infra"]["launcher"]["memory"] = "16G"
    first["op"]["terms"].append("bias")
    assert folder.config() == folder.config(shared=True) == config
    assert load("a: &one {b: 1}\nc: *one\n") == {"a": {"b": 1}, "c": {"b": 1}}  # an alias across groups
