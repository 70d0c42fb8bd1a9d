"""One process at a time in a run folder.

A claim is valid only while its process lives and keeps updating it.
"""

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

from ablate.store import shapes
from ablate.store.files import read_json, write_json
from ablate.store.folder import CLAIM
from ablate.store.locks import LockedError, locked

LOCK = ".claim.lock"  # held for as long as it takes to look at the claim and to write
LAUNCHER = "ABLATE_LAUNCHER"  # environment variable: process number of the launcher that a worker belongs to
HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0  # a claim of another machine counts as dead once its last heartbeat is older
OBSERVED_SECONDS = 45.0  # without a heartbeat, by the observer's own clock: another process may claim the run


class ClaimedError(RuntimeError):
    """Another process is computing the run of this folder."""


class LostClaimError(ClaimedError):
    """Another process has claimed the run that this one was computing: nothing may be written any more."""


class Claim:
    """The right to write into a run folder, kept alive by a thread until it is released.

    Every claim writes a token of its own into claim.json. Before files are changed, `writing` compares it.
    """

    def __init__(self, path: Path, **more: Any) -> None:
        self.path, self.token = path, secrets.token_hex(8)
        self.released = threading.Event()
        self.lost = False
        self.beaten = _uptime()
        born = _born(os.getpid())
        launcher = int(os.environ.get(LAUNCHER, os.getpid()))
        mine = {"pid": os.getpid(), "born": born, "launcher": launcher, "token": self.token}
        write_json(path, {**_place(), **mine, **more})
        threading.Thread(target=self._beat, daemon=True).start()

    def check(self) -> None:
        """Read the claim again if this process has stood still. Cheap: called at every step.

        Raises:
            LostClaimError: another process took the claim, because this one's heartbeat had stopped
                (a machine that slept, say). Nothing may be written any more.
        """
        stood_still = _uptime() - self.beaten > OBSERVED_SECONDS / 2
        if self.lost or stood_still:  # another process may have claimed the run
            self.ensure()

    def ensure(self) -> None:
        """Read the claim on disk.

        Raises:
            LostClaimError: it is not this process's any more.
        """
        self.lost = self.lost or not self._ours()
        if self.lost:
            raise LostClaimError(
                f"another process took the run over while process {os.getpid()} stood still; "
                "this one ends, and writes nothing"
            )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Take the folder's lock, check that the token is still ours, then let the caller change files.

        No other process can claim the folder until the block ends.

        Raises:
            LostClaimError: the claim is not this process's any more.
            LockedError: another process stands still while it holds the folder's lock.
        """
        with locked(self.path.with_name(LOCK)):
            self.ensure()
            yield

    def release(self) -> None:
        """Give the folder back, if it is still ours."""
        self.released.set()
        # a claim that stays behind does no harm: its process is gone, and another one may claim the run
        with suppress(OSError, LockedError), locked(self.path.with_name(LOCK)):
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

    A claim whose process is gone is replaced: on this machine if its process no longer exists,
    on another one if no heartbeat is seen for OBSERVED_SECONDS. Clocks do not matter.

    Raises:
        ClaimedError: a living process holds the claim; says which.
        LockedError: another process stands still while it holds the folder's lock.
    """
    claimed = _take(folder)
    try:
        yield claimed
    finally:
        claimed.release()


def _take(folder: Path) -> Claim:
    """Hold the lock only to read and to write; wait for another machine's heartbeat without it."""
    silent: tuple[int, int] | None = None  # the claim that was seen not to beat
    while True:
        with locked(folder / LOCK):
            holder, seen = _holder(folder / CLAIM), _beaten(folder)
            if holder is None or (not _alive_here(holder) if is_here(holder) else seen == silent):
                return Claim(folder / CLAIM)
        if is_here(holder) or _beats(folder, seen):
            raise ClaimedError(f"claimed by process {holder['pid']} on {holder['host']}")
        silent = seen


def living_holder(folder: Path) -> dict[str, Any] | None:
    """Return the process that holds the folder's claim, or None if none is alive, judged by one look."""
    return living(folder / CLAIM)


def living(path: Path) -> dict[str, Any] | None:
    """Return the living holder of the claim at `path`; see `living_holder`."""
    holder = _holder(path)
    if holder is None or is_here(holder):
        return holder if holder is not None and _alive_here(holder) else None
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
    return holder if abs(age) < STALE_SECONDS else None  # one from the future has a clock that was moved


def _holder(path: Path) -> dict[str, Any] | None:
    """Return the content of a claim; None if there is none, or if it is damaged and names no process."""
    holder = read_json(path)
    return holder if shapes.claim(holder) is None else None


def is_here(holder: dict[str, Any]) -> bool:
    """Return True if the process that holds a claim runs on this machine."""
    return {key: holder.get(key) for key in _place()} == _place()


def _alive_here(holder: dict[str, Any]) -> bool:
    return _born(int(holder["pid"])) == holder.get("born")


def _beaten(folder: Path) -> tuple[int, int] | None:
    """Return identity of the claim's file and time of its last heartbeat; None if there is no claim."""
    try:
        found = (folder / CLAIM).stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _beats(folder: Path, before: tuple[int, int] | None) -> bool:
    """Wait for a heartbeat of another machine's claim; return True if there is one in OBSERVED_SECONDS."""
    begun = _uptime()
    while _uptime() - begun < OBSERVED_SECONDS:
        time.sleep(min(1.0, OBSERVED_SECONDS / 10))
        if (now := _beaten(folder)) != before:
            return now is not None
    return False


def _uptime() -> float:
    """Seconds of a clock that cannot be set and that continues while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _place() -> dict[str, str]:
    """Scope in which process numbers are unique: the machine and, on Linux, the container."""
    namespace = Path("/proc/self/ns/pid")
    return {
        "host": socket.gethostname(),
        "namespace": str(namespace.readlink()) if namespace.is_symlink() else "",
    }


def _born(pid: int) -> str | None:
    """Start time of a process, which differs from that of a later one with its number; None if it is gone."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]  # start time in ticks; a zombie has ended
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
    """Return a record of this process, as the argument of `gone` later."""
    return {**_place(), "pid": os.getpid(), "born": _born(os.getpid())}


def gone(process: dict[str, Any]) -> bool:
    """Return True if a recorded process was one of this machine's and has ended."""
    return is_here(process) and not _alive_here(process)
