"""Ctrl-C and SIGTERM as one thing: an interruption that is recorded and can be gone on from."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTION = 130  # exit code of a process that was interrupted, as shells have it


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """SIGTERM as Ctrl-C within the block, where signals can be set (the main thread)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
