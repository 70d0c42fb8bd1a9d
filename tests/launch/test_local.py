"""Worker processes and the signals that reach them."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from ablate.launch.local.pool import WorkerPool
from ablate.store.folder import INTERRUPTED


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_signal_to_a_worker_that_has_only_begun_interrupts_it(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it has a handler: where the time limit or a preemption comes as a job starts."""
    start = WorkerPool._start

    def struck(pool: WorkerPool, slot: int) -> subprocess.Popen[str]:
        process = start(pool, slot)
        process.send_signal(number)
        return process

    monkeypatch.setattr(WorkerPool, "_start", struck)
    pool = WorkerPool(tmp_path, ["0123456789ab"], 1, {"devices": 1, "threads": 1, "device": "cpu"})
    (outcome,) = pool.run(lambda event: None, lambda: None).values()
    assert outcome.state == INTERRUPTED
