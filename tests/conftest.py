from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # pytest-xdist runs a worker on every core


if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # a shell's background job; programs started here inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-network", action="store_true", help="walk all published networks, not one per family"
    )
    parser.addoption(
        "--slurm", action="store_true", help="run tests/slurm in several processes too, each with a cluster"
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """One place that skips, so that one line reports it."""
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def no_shared_service() -> Iterator[None]:
    """W&B's client names its service in the environment, where whatever a test starts would join it.

    A page that one of them left open is then in use for the others.
    """
    yield
    os.environ.pop("WANDB_SERVICE", None)


@dataclass
class Finished:
    code: int
    out: str
    err: str


@pytest.fixture
def ablate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Finished]:
    """The command line in this process, in an empty folder, without W&B unless the test asks for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))  # where plug-ins of a user are listed
    monkeypatch.setenv("ABLATE_PLUGINS", "")  # and removed afterwards, whatever a command writes into it

    def run(*arguments: str) -> Finished:
        from ablate import cli

        monkeypatch.setattr(sys, "argv", ["ablate"])
        given = [*arguments]
        if given[0] == "train" and not any(argument.startswith("infra.tracking") for argument in given):
            given.append("infra.tracking=none")
        capfd.readouterr()
        try:
            cli.main(given)
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        captured = capfd.readouterr()
        return Finished(code, captured.out, captured.err)

    return run
