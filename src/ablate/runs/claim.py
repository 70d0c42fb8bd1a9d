"""One process at a time in a run folder; a claim outlives neither its process nor its heartbeat."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ablate.store.files import locked, read_json, write_json

CLAIM = "claim.json"
LAUNCHER = "ABLATE_LAUNCHER"  # environment variable: the process that a worker works for
HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0  # a claim of another machine whose last heartbeat is older than this is taken for dead
OBSERVED_SECONDS = 45.0  # and taken over if no heartbeat is seen for so long, whatever the clocks say


class ClaimedError(RuntimeError):
    """Another process is at work in the run folder."""


class Claim:
    """The right to write into a run folder, kept alive by a thread until it is released."""

    def __init__(self, path: Path) -> None:
        self.path, self.token = path, secrets.token_hex(8)
        self.released = threading.Event()
        self.lost = False
        self.beaten = _uptime()
        born = _born(os.getpid())
        launcher = int(os.environ.get(LAUNCHER, os.getpid()))
        mine = {"pid": os.getpid(), "born": born, "launcher": launcher, "token": self.token}
        write_json(path, {**_place(), **mine})
        threading.Thread(target=self._beat, daemon=True).start()

    def check(self) -> None:
        """To be called at every step.

        Raises:
            ClaimedError: another process took the claim, because this one's heartbeat had stopped
                (a machine that slept, say). Nothing may be written any more.
        """
        stood_still = _uptime() - self.beaten > OBSERVED_SECONDS / 2
        if stood_still:  # the claim may be another's by now
            self.lost = not self._ours()
        if self.lost:
            raise ClaimedError("another process took the run over while this one stood still")

    def release(self) -> None:
        """Give the folder back, if it is still ours."""
        self.released.set()
        with suppress(OSError):  # a claim that stays behind is taken over: its process is gone
            if self._ours():
                self.path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self.released.wait(HEARTBEAT_SECONDS):
            try:
                if not self._ours():
                    self.lost = True
                    return
                os.utime(self.path)
                self.beaten = _uptime()
            except OSError:  # a network folder that stutters; the next beat tries again
                continue

    def _ours(self) -> bool:
        holder = read_json(self.path)
        return isinstance(holder, dict) and holder.get("token") == self.token


@contextmanager
def claim(folder: Path) -> Iterator[Claim]:
    """Claim a run folder until the block ends.

    A claim whose process is gone is taken over: on this machine if its process no longer exists,
    on another one if no heartbeat is seen for OBSERVED_SECONDS. Clocks do not matter.

    Raises:
        ClaimedError: a living process holds the claim; says which.
    """
    with locked(folder / ".claim.lock"):
        holder = _holder(folder)
        if holder is not None and (_alive_here(holder) if is_here(holder) else _beats(folder)):
            raise ClaimedError(f"claimed by process {holder['pid']} on {holder['host']}")
        claimed = Claim(folder / CLAIM)
    try:
        yield claimed
    finally:
        claimed.release()


def living_holder(folder: Path) -> dict[str, Any] | None:
    """The process that holds the folder's claim, or None if there is none alive, as far as one look tells."""
    holder = _holder(folder)
    if holder is None or is_here(holder):
        return holder if holder is not None and _alive_here(holder) else None
    try:
        age = time.time() - (folder / CLAIM).stat().st_mtime
    except FileNotFoundError:
        return None
    return holder if abs(age) < STALE_SECONDS else None  # one from the future has a clock that was moved


def _holder(folder: Path) -> dict[str, Any] | None:
    holder = read_json(folder / CLAIM)
    return holder if isinstance(holder, dict) else None


def is_here(holder: dict[str, Any]) -> bool:
    """Whether the process that holds a claim is one of this machine's."""
    return {key: holder.get(key) for key in _place()} == _place()


def _alive_here(holder: dict[str, Any]) -> bool:
    return _born(int(holder["pid"])) == holder.get("born")


def _beats(folder: Path) -> bool:
    """Whether another machine's heart is seen to beat, or its claim to go, by this machine's own patience."""

    def seen() -> int | None:
        try:
            return (folder / CLAIM).stat().st_mtime_ns
        except FileNotFoundError:
            return None

    first, begun = seen(), _uptime()
    while _uptime() - begun < OBSERVED_SECONDS:
        time.sleep(min(1.0, OBSERVED_SECONDS / 10))
        if (now := seen()) != first:
            return now is not None
    return False


def _uptime() -> float:
    """Seconds that no one can set, and that go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _place() -> dict[str, str]:
    """Where process numbers mean the same: the machine, and on Linux the container's own numbering."""
    namespace = Path("/proc/self/ns/pid")
    return {
        "host": socket.gethostname(),
        "namespace": str(namespace.readlink()) if namespace.is_symlink() else "",
    }


def _born(pid: int) -> str | None:
    """What tells a process from a later one with its number; None if there is no such process."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]  # start time in ticks; a zombie works no more
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return "alive"
    return "alive"


def this_process() -> dict[str, Any]:
    """A record of this process, for `gone` to be called with later."""
    return {**_place(), "pid": os.getpid(), "born": _born(os.getpid())}


def gone(process: dict[str, Any]) -> bool:
    """Return True if a recorded process was one of this machine's and has ended."""
    return is_here(process) and not _alive_here(process)
