"""One process at a time in a run folder."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ablate.execution import claim as claims
from ablate.execution.claim import ClaimedError, claim, living_holder
from ablate.store.files import write_json

HOLD = """
import sys, time
from pathlib import Path
from ablate.execution.claim import claim
with claim(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_living_process_keeps_its_claim_and_a_dead_one_loses_it(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ClaimedError, match=str(holder.pid)), claim(tmp_path):
        pass
    holder.kill()
    holder.wait()
    assert (tmp_path / "claim.json").exists()
    with claim(tmp_path):
        assert living_holder(tmp_path)["pid"] == os.getpid()
    assert living_holder(tmp_path) is None


def test_a_process_number_that_was_given_again_is_not_the_holder(tmp_path: Path) -> None:
    write_json(tmp_path / "claim.json", {**claims._place(), "pid": os.getpid(), "born": "1"})
    assert living_holder(tmp_path) is None


def test_another_machine_is_believed_while_its_heart_beats(tmp_path: Path) -> None:
    path = tmp_path / "claim.json"
    write_json(path, {"host": "elsewhere", "pid": 1, "born": "1"})
    assert living_holder(tmp_path)["host"] == "elsewhere"
    long_ago = time.time() - claims.STALE_SECONDS - 1
    os.utime(path, (long_ago, long_ago))
    assert living_holder(tmp_path) is None


@pytest.mark.parametrize("moved", [-7200, 0, 7200])
def test_a_claim_is_taken_over_by_patience_and_not_by_the_clock(
    moved: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "OBSERVED_SECONDS", 0.5)
    path = tmp_path / "claim.json"
    write_json(path, {"host": "elsewhere", "pid": 1, "born": "1", "token": "theirs"})
    stopped = threading.Event()

    def beat() -> None:
        stamp = time.time() + moved
        while not stopped.wait(0.05):
            stamp += 1
            os.utime(path, (stamp, stamp))

    heart = threading.Thread(target=beat)
    heart.start()
    with pytest.raises(ClaimedError, match="elsewhere"), claim(tmp_path):
        pass
    stopped.set()
    heart.join()
    with claim(tmp_path):
        assert living_holder(tmp_path)["pid"] == os.getpid()


def test_the_heart_beats_by_itself_and_a_claim_that_was_taken_over_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.05)
    path = tmp_path / "claim.json"
    with claim(tmp_path) as mine:
        os.utime(path, (0, 0))
        time.sleep(0.5)
        assert path.stat().st_mtime > 0
        mine.check()
        write_json(path, {"host": "elsewhere", "pid": 1, "born": "1", "token": "theirs"})
        time.sleep(0.5)
        with pytest.raises(ClaimedError, match="took the run over"):
            mine.check()
    assert path.exists()  # theirs, not ours to remove
