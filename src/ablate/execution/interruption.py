"""Being told to stop: Ctrl-C at once, SIGTERM and SIGUSR2 as soon as the step ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

FAILURE = 1  # exit code of a program of which a run failed
CLAIM_LOST = 75  # exit code of a process whose run another one has claimed (EX_TEMPFAIL of sysexits.h)
INTERRUPTION = 130  # exit code of a process that was interrupted, as shells have it
ASKING = (signal.SIGTERM, signal.SIGUSR2)  # scancel, preemption; the time limit comes near


class Stop:
    """Whether a signal has asked for the end. Asked a second time, Ctrl-C is what it means."""

    def __init__(self) -> None:
        self.asked_by: signal.Signals | None = None

    def __call__(self) -> bool:
        """Read at every step."""
        return self.asked_by is not None

    def ask(self, number: int, frame: object) -> None:
        """The handler of the signals."""
        if self.asked_by == signal.SIGTERM and number == signal.SIGTERM:
            raise KeyboardInterrupt
        self.asked_by = signal.Signals(number)


_installed: Stop | None = None


@contextmanager
def stoppable() -> Iterator[Stop]:
    """SIGTERM and SIGUSR2 only ask within the block, where signals can be set (the main thread).

    Nested blocks share what was asked.
    """
    global _installed
    if threading.current_thread() is not threading.main_thread():
        yield Stop()
        return
    if _installed is not None:
        yield _installed
        return
    _installed = Stop()
    previous = {number: signal.signal(number, _installed.ask) for number in ASKING}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKING)  # see `held_back`
    try:
        yield _installed
    finally:
        _installed = None
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def held_back() -> Iterator[None]:
    """SIGTERM and SIGUSR2 wait, for this thread until the block ends, for processes that it starts until
    they are `stoppable`: one that has only begun would die of them, and its run would count as failed.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
