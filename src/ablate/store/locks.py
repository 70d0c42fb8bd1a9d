"""File locks with a limit: no process waits for ever for one that is stopped."""

from __future__ import annotations

import fcntl
import os
import shlex
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ablate.errors import UserError

SECONDS = 30.0  # longer than anything that is done under a lock of a run folder


class LockedError(UserError):
    """Another process has held a lock for too long; names the file, the process and the way out."""


@contextmanager
def locked(path: Path, seconds: float = SECONDS) -> Iterator[None]:
    """Hold the lock of a file until the block ends; where a file system has no locks, continue without.

    The lock belongs to the process: it goes when the process ends, however it ends. The file holds the name
    of the last process that had it.

    Args:
        path: the lock's file, which is created and stays.
        seconds: how long to wait for another process.

    Raises:
        LockedError: another process holds the lock and did not let go of it within `seconds`.
    """
    with path.open("a+") as stream:
        if _acquire(stream, path, seconds):
            with suppress(OSError):  # the name is for messages only
                stream.truncate(0)
                stream.write(f"{os.getpid()} {socket.gethostname()}\n")
                stream.flush()
        try:
            yield
        finally:
            with suppress(OSError):  # unlocked here and not by closing: a forked child has the file open too
                fcntl.flock(stream, fcntl.LOCK_UN)


def _acquire(stream: IO[str], path: Path, seconds: float) -> bool:
    """Wait for the lock; return False on a file system without locks."""
    begun, pause = time.monotonic(), 0.002
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() - begun >= seconds:
                raise _too_long(stream, path, seconds) from None
            time.sleep(pause)
            pause = min(2 * pause, 0.2)
        except OSError:
            return False


def _too_long(stream: IO[str], path: Path, seconds: float) -> LockedError:
    stream.seek(0)
    process, _, host = stream.read().strip().partition(" ")
    if not process.isdecimal():
        return LockedError(
            f"{path} has been locked for {seconds:g} s by another process",
            f"fuser {shlex.quote(str(path))} finds the process; the lock goes when it ends",
        )
    holder = f"process {process}" + (f" on {host}" if host != socket.gethostname() else "")
    stopped = ", which is suspended," if host == socket.gethostname() and _suspended(process) else ""
    return LockedError(
        f"{path} has been locked for {seconds:g} s by {holder}{stopped}",
        f"kill -CONT {process} lets a suspended process continue, kill -KILL {process} ends it; "
        "the lock goes with the process, and no file needs to be removed",
    )


def _suspended(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return False
