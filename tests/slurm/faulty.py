"""An operator that goes wrong while a file is there, each time in the way that it is set to."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from torch import Tensor, nn

from ablate import ops


def _raise() -> None:
    raise ArithmeticError("on purpose")


def _move_the_clock() -> None:
    """Two hours ahead, of all that asks for the time or stamps a file."""
    time.sleep(0.05)
    if time.time is _now:
        time.time = lambda: _now() + 7200
        os.utime = lambda path, *_, **__: _stamp(path, (time.time(), time.time()))


_now, _stamp = time.time, os.utime

FAULTS = {
    "none": lambda: None,
    "exit": lambda: os._exit(7),
    "raise": _raise,
    "memory": lambda: os.kill(os.getpid(), signal.SIGKILL),  # what the kernel sends when memory is short
    "slow": lambda: time.sleep(0.05),
    "clock": _move_the_clock,
}


@ops.register("faulty", paper="-", year=2026, channel_setting="-", spatial_processing="-")
class Faulty(nn.Module):
    def __init__(self, dim: int, fault: str = "none") -> None:
        super().__init__()
        self.fault = FAULTS[fault]
        self.scale = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_meta and self.training and Path(os.environ["ABLATE_TEST_ARMED"]).exists():
            self.fault()
        return self.scale(x)
