"""One process at a time in a run folder; a claim outlives neither its process nor its heartbeat."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.store.files import read_json, write_json

HEARTBEAT_SECONDS = 20.0
STALE_SECONDS = 300.0  # a claim of another machine without a heartbeat for so long is given up


class ClaimedError(RuntimeError):
    """Another process is at work in the run folder."""


@dataclass
class Claim:
    """The right to write into a run folder."""

    path: Path
    last_beat: float = 0.0

    def heartbeat(self) -> None:
        """Say that the process is alive; cheap, to be called at every step."""
        now = time.monotonic()
        if now - self.last_beat >= HEARTBEAT_SECONDS:
            self.last_beat = now
            os.utime(self.path)


@contextmanager
def claim(folder: Path) -> Iterator[Claim]:
    """Claim a run folder until the block ends.

    A claim whose process is gone is taken over: on this machine if its process no longer exists,
    on another one if its heartbeat has stopped.

    Raises:
        ClaimedError: a living process holds the claim; says which.
    """
    path = folder / "claim.json"
    with _locked(folder / ".claim.lock"):
        if (holder := living_holder(folder)) is not None:
            raise ClaimedError(f"claimed by process {holder['pid']} on {holder['host']}")
        write_json(path, {"host": socket.gethostname(), "pid": os.getpid(), "born": _born(os.getpid())})
    try:
        yield Claim(path, time.monotonic())
    finally:
        path.unlink(missing_ok=True)


def living_holder(folder: Path) -> dict[str, Any] | None:
    """The process that holds the folder's claim, or None if there is none alive."""
    path = folder / "claim.json"
    holder = read_json(path)
    if not isinstance(holder, dict):
        return None
    if holder.get("host") == socket.gethostname():
        return holder if _born(int(holder["pid"])) == holder.get("born") else None
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
    return holder if age < STALE_SECONDS else None


def _born(pid: int) -> str | None:
    """What tells a process from a later one with its number; None if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]  # start time in ticks
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
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
