"""A process that stood still while another one claimed its run writes nothing into the folder any more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ablate.configuration import conf_dir
from ablate.execution.claim import Claim, claim
from ablate.execution.execute import execute
from ablate.execution.interruption import CLAIM_LOST
from ablate.execution.outcome import SUPERSEDED
from ablate.execution.status import record_death
from ablate.launch.local.pool import WorkerPool
from ablate.store.files import write_json, write_text
from ablate.store.folder import RunFolder, dump
from ablate.store.identity import signature
from ablate.store.locks import LockedError, locked
from ablate.training.progress import Silent


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    fixed = ["recipe=debug", "data=synthetic", "infra.tracking=none", "infra.device=cpu", "infra.threads=1"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = compose("train", [*fixed, "op=dwconv", "data.train=64", "recipe.epochs=1"])
    plain: Any = OmegaConf.to_container(composed, resolve=True)
    return plain


def take_over(folder: Path) -> dict[str, bytes]:
    """Another machine claims the folder and finishes the run; returns the files as it left them."""
    write_json(folder / "claim.json", {"host": "elsewhere", "pid": 1, "born": "1", "token": "theirs"})
    write_json(folder / "status.json", {"state": "finished", "attempt": 2})
    write_json(folder / "result.json", {"test_top1": 1.0})
    (folder / "checkpoint.pt").write_bytes(b"theirs")
    return snapshot(folder)


def snapshot(folder: Path) -> dict[str, bytes]:
    """Contents by name, but for temporary files and the log of a worker."""
    kept = (path for path in folder.iterdir() if path.suffix not in (".part", ".lock", ".log"))
    return {path.name: path.read_bytes() for path in kept}


def standing_still(at: int, folder: Path, how: str) -> tuple[Callable[[Claim], None], dict[str, bytes]]:
    """`Claim.ensure`, before whose look number `at` another process takes the folder, and what it left."""
    look, looks, left = Claim.ensure, iter(range(1, 1000)), dict[str, bytes]()

    def ensure(self: Claim) -> None:
        if next(looks) == at:
            left.update(take_over(folder))
            if how == "meets an exception":
                raise ArithmeticError("the data set went away meanwhile")
            if how == "is interrupted":
                raise KeyboardInterrupt
        look(self)

    return ensure, left


@pytest.mark.parametrize("how", ["continues", "meets an exception", "is interrupted"])
def test_nothing_is_written_once_another_process_has_claimed_the_run(
    how: str, config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process stands still before its first look at the claim, its second, and so on to its last."""
    for number in range(1, 100):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        ensure, left = standing_still(number, folder, how)
        with monkeypatch.context() as patched:
            patched.setattr(Claim, "ensure", ensure)
            outcome = execute(folder, config, Silent())
        if not left:
            break
        assert snapshot(folder) == left, number
        assert outcome.state == SUPERSEDED, outcome
        assert "stood still" in outcome.detail
    assert number > 8  # status, environment, speed, metrics, checkpoint, result, …
    assert outcome.state == "finished"


def test_a_worker_whose_run_was_claimed_says_so_and_ends_with_a_code_of_its_own(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """Stopped for real at its first epoch, and continued once another machine has finished the run."""
    config = {**config, "recipe": {**config["recipe"], "epochs": 1000}}
    folder = RunFolder(tmp_path / signature(config))
    folder.path.mkdir()
    write_text(folder.config_path, dump(config))
    pool = WorkerPool(tmp_path, [folder.signature], 1, {"devices": 1, "threads": 1, "device": "cpu"})
    left: dict[str, bytes] = {}

    def watch() -> None:
        if not left and folder.metrics():
            worker = pool.processes[0]
            worker.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, worker.pid, os.WSTOPPED | os.WNOWAIT)
            left.update(take_over(folder.path))
            worker.send_signal(signal.SIGCONT)

    (outcome,) = pool.run(lambda event: None, watch).values()
    assert outcome.state == SUPERSEDED
    assert pool.processes[0].wait(30) == CLAIM_LOST
    assert snapshot(folder.path) == left


def test_a_death_is_not_recorded_where_another_process_is_at_work(tmp_path: Path) -> None:
    with claim(tmp_path):
        record_death(tmp_path, "killed")
        assert not (tmp_path / "status.json").exists()
    record_death(tmp_path, "killed")
    assert RunFolder(tmp_path).state() == "failed"


HOLD = """
import sys, time
from pathlib import Path
from ablate.store.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_that_a_suspended_process_holds_is_waited_for_no_longer_than_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".claim.lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, holder.pid, os.WSTOPPED | os.WNOWAIT)
    try:
        with pytest.raises(LockedError) as caught, locked(path, 0.3):
            pass
        for words in (str(path), f"process {holder.pid}, which is suspended", f"kill -CONT {holder.pid}"):
            assert words in str(caught.value)
        monkeypatch.setattr(locked.__wrapped__, "__defaults__", (0.3,))
        outcome = execute(tmp_path, {"infra": {}})
        assert outcome.state == "failed"
        assert str(path) in outcome.detail
    finally:
        holder.kill()
        holder.wait()
    with locked(path, 0.3):  # the lock went with its process
        pass
