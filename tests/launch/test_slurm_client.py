"""Questions of a job to SLURM, and its reaction to signals."""

from __future__ import annotations

import signal

import pytest

from ablate.execution.interruption import Stop
from ablate.launch.slurm import client


@pytest.mark.parametrize(
    ("printed", "seconds"),
    [
        ("2-03:04:05", 183845),
        ("1:02:03", 3723),
        ("4:05\n", 245),
        ("UNLIMITED", None),
        ("INVALID", None),
        ("", None),
    ],
)
def test_the_time_left_is_read_in_all_of_squeues_forms(
    printed: str, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "call", lambda command: printed)
    assert client.time_left("1_0") == seconds


def test_a_job_that_is_cancelled_is_not_put_back_by_a_later_signal() -> None:
    stop = Stop()
    stop.request(signal.SIGTERM, None)
    stop.request(signal.SIGUSR2, None)
    assert stop.requested_by == signal.SIGTERM
    warned = Stop()
    warned.request(signal.SIGUSR2, None)
    warned.request(signal.SIGTERM, None)
    assert warned.requested_by == signal.SIGTERM
