"""The outcome of a run, which its launcher receives."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

from ablate.errors import UserError, place_of
from ablate.store.folder import FAILED

SKIPPED, CLAIMED, SUPERSEDED = "skipped", "claimed", "superseded"
# Errors that every other run of the same folder would meet too.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


@dataclass(frozen=True)
class Outcome:
    """End of a run.

    Attributes:
        state: a state of `store.folder`; or `skipped`: the run was finished before; `claimed`: another
            process is computing it; `superseded`: another process claimed it while this one stood still;
            `damaged`: its frozen configuration cannot be used.
        detail: for the user.
        no_room: the disk is full or cannot be written, so that no other run can succeed either.
    """

    state: str
    detail: str = ""
    no_room: bool = False


def failure(error: Exception, path: Path) -> Outcome:
    """Return the outcome of an exception; an error of the disk without a path receives that of the run."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        error.filename = error.filename or str(path)
        return Outcome(FAILED, str(error), no_room=True)
    if isinstance(error, UserError):
        return Outcome(FAILED, str(error))
    first, *rest = f"{type(error).__name__}: {error}".splitlines()
    return Outcome(FAILED, "\n".join([f"{first}{place_of(error)}", *rest]))
