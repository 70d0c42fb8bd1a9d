"""One process at a time in a run folder; a claim outlives neither its process nor its heartbeat."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ablate.store.files import read_json, write_json

HEARTBEAT_SECONDS = 20.0
STALE_SECONDS = 300.0  # a claim of another machine without a heartbeat for so long is given up


class ClaimedError(RuntimeError):
    """Another process is at work in the run folder."""


class Claim:
    """The right to write into a run folder, kept alive by a thread until it is released."""

    def __init__(self, path: Path) -> None:
        self.path, self.token = path, secrets.token_hex(8)
        self.released = threading.Event()
        self.lost = False
        self.beaten = time.time()
        born = _born(os.getpid())
        write_json(path, {**_place(), "pid": os.getpid(), "born": born, "token": self.token})
        threading.Thread(target=self._beat, daemon=True).start()

    def check(self) -> None:
        """To be called at every step.

        Raises:
            ClaimedError: another process took the claim, because this one's heartbeat had stopped
                (a machine that slept, say). Nothing may be written any more.
        """
        if time.time() - self.beaten > STALE_SECONDS / 2:  # it stood still: the claim may be another's by now
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
                self.beaten = time.time()
            except OSError:  # a network folder that stutters; the next beat tries again
                continue

    def _ours(self) -> bool:
        holder = read_json(self.path)
        return isinstance(holder, dict) and holder.get("token") == self.token


@contextmanager
def claim(folder: Path) -> Iterator[Claim]:
    """Claim a run folder until the block ends.

    A claim whose process is gone is taken over: on this machine if its process no longer exists,
    on another one if its heartbeat has stopped.

    Raises:
        ClaimedError: a living process holds the claim; says which.
    """
    with _locked(folder / ".claim.lock"):
        if (holder := living_holder(folder)) is not None:
            raise ClaimedError(f"claimed by process {holder['pid']} on {holder['host']}")
        claimed = Claim(folder / "claim.json")
    try:
        yield claimed
    finally:
        claimed.release()


def living_holder(folder: Path) -> dict[str, Any] | None:
    """The process that holds the folder's claim, or None if there is none alive."""
    path = folder / "claim.json"
    holder = read_json(path)
    if not isinstance(holder, dict):
        return None
    if {key: holder.get(key) for key in _place()} == _place():
        return holder if _born(int(holder["pid"])) == holder.get("born") else None
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
    return holder if age < STALE_SECONDS else None


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


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as stream:
        with suppress(OSError):  # some network folders have no locks; the claim file alone has to do
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
