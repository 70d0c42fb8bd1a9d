"""`ablate init`: every package that it writes passes its own test, and never replaces anything."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ablate import cli, scaffold
from ablate.cli.completion import complete
from ablate.configuration import conf_dir


def test_an_operator_is_the_default(ablate: Callable, tmp_path: Path) -> None:
    assert ablate("init", "mine_by_default").code == 0
    assert (
        "The operator mine_by_default"
        in (tmp_path / "mine_by_default/mine_by_default/__init__.py").read_text()
    )
    done = ablate("init", "operator")
    assert (done.code, "a name is missing" in done.err) == (2, True)
    assert complete(cli._parser(), ["init", "ho"]) == ["host"]


def test_every_kind_works_as_it_is_written(ablate: Callable, tmp_path: Path) -> None:
    names = {kind: f"my_{kind}" for kind in scaffold.KINDS}
    for kind, name in names.items():
        done = ablate("init", kind, name)
        assert done.code == 0, done.err
        assert f"next: cd {name} && pip install" in done.out
        text = "".join(path.read_text() for path in (tmp_path / name).rglob("*") if path.is_file())
        assert scaffold.NAME not in text
    places = [str(tmp_path / name) for name in names.values()]
    passed = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
        + [f"{place}/tests" for place in places],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*places, os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert passed.returncode == 0, passed.stdout + passed.stderr
    assert f"{len(names)} passed" in passed.stdout


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("operater", "mine", "did you mean 'operator'"),
        ("operator", "elsa", "registered already"),
        ("study", "quick", "registered already"),
        ("operator", "torch", "a module that is installed"),
        ("host", "../up", "cannot be the name of a package"),
        ("data", "class", "cannot be the name of a package"),
        ("data", "taken", "is there already"),
    ],
)
def test_what_is_taken_or_no_name_is_refused_and_nothing_is_written(
    kind: str, name: str, words: str, ablate: Callable, tmp_path: Path
) -> None:
    (tmp_path / "taken").mkdir()
    done = ablate("init", kind, name)
    assert (done.code, words in done.err) == (2, True), done.err
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
    assert (conf_dir() / "study" / "quick.yaml").exists()
