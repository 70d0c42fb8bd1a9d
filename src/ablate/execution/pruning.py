"""Pruning: a search asks a run to end early, by a file in the run's folder.

The search may run on another machine than the run; both see the folder.
"""

from __future__ import annotations

import time

from ablate.store.files import read_json, write_json
from ablate.store.folder import RunFolder

SECONDS = 1.0  # between two looks at the folder, which may be on a network


def request(folder: RunFolder, reason: str) -> None:
    """Ask the process that computes a run to end it after the current step."""
    write_json(folder.prune_path, {"reason": reason})


def withdraw(folder: RunFolder) -> None:
    """Remove the request that an earlier search made."""
    folder.prune_path.unlink(missing_ok=True)


class Pruning:
    """The request, as the run's process sees it."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.reason: str | None = None
        self.looked = -SECONDS

    def __call__(self) -> bool:
        """Return True once the run is to end early; called at every step, looks once a second."""
        if self.reason is None and time.monotonic() - self.looked >= SECONDS:
            self.looked = time.monotonic()
            found = read_json(self.folder.prune_path)
            if isinstance(found, dict):
                self.reason = str(found.get("reason") or "a search has no use for it")
        return self.reason is not None
