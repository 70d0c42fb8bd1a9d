"""Requests to stop: Ctrl-C stops at once, SIGTERM and SIGUSR2 stop as soon as the step ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

FAILURE = 1  # exit code of a program of which a run failed
CLAIM_LOST = 75  # exit code of a process whose run another one has claimed (EX_TEMPFAIL of sysexits.h)
INTERRUPTION = 130  # exit code of a process that was interrupted, as shells have it
REQUESTS = (signal.SIGTERM, signal.SIGUSR2)  # scancel, preemption; the time limit is near


class Stop:
    """A request to stop, made by a signal. A second SIGTERM acts like Ctrl-C."""

    def __init__(self) -> None:
        self.requested_by: signal.Signals | None = None

    def __call__(self) -> bool:
        """Return True if a stop was requested; read at every step."""
        return self.requested_by is not None

    def request(self, number: int, frame: object) -> None:
        """Handler of the signals."""
        if self.requested_by == signal.SIGTERM and number == signal.SIGTERM:
            raise KeyboardInterrupt
        if self.requested_by != signal.SIGTERM:  # which ends a job for good; the other puts it back
            self.requested_by = signal.Signals(number)


_installed: Stop | None = None


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Turn SIGTERM and SIGUSR2 into a request to stop within the block, on the main thread.

    Other threads cannot set signal handlers and get a request that is never made. Nested blocks share one.
    """
    global _installed
    if threading.current_thread() is not threading.main_thread():
        yield Stop()
        return
    if _installed is not None:
        yield _installed
        return
    _installed = Stop()
    previous = {number: signal.signal(number, _installed.request) for number in REQUESTS}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, REQUESTS)  # see `held_back`
    try:
        yield _installed
    finally:
        _installed = None
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def held_back() -> Iterator[None]:
    """Block SIGTERM and SIGUSR2 in this thread until the block ends.

    Processes that are started meanwhile keep them blocked until they are `stoppable`: a process that has only
    just started would die of them, and its run would count as failed.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, REQUESTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Make SIGTERM act like Ctrl-C within the block, on the main thread."""
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
