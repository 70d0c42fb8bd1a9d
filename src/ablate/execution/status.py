"""The state of a run in its folder: status.json, written by the process that has claimed the run."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ablate.execution.claim import ClaimedError, claim
from ablate.store import digests
from ablate.store.files import json_text, now, write_json, write_text
from ablate.store.folder import FAILED, FINISHED, INTERRUPTED, PRUNED, RUNNING, RunFolder


class Status:
    """status.json, rewritten whole at every change."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.record: dict[str, Any] = folder.status()

    def start(self, config: Mapping[str, Any]) -> None:
        """Record that a new attempt begins in this process."""
        self.update(
            state=RUNNING,
            attempt=int(self.record.get("attempt") or 0) + 1,
            started=now(),
            finished=None,
            host=socket.gethostname(),
            pid=os.getpid(),
            error=None,
            epochs=config["recipe"].get("epochs") or self.record.get("epochs"),
            first_epoch=self.record.get("epoch") or 0,
        )

    def update(self, **changes: Any) -> None:
        """Change fields and write the file."""
        self._change(changes)
        write_json(self.folder.status_path, self.record, self.folder.guard)

    def fail(self, error: str) -> None:
        """Record a failure, with its error in one line."""
        self.update(state=FAILED, finished=now(), error=error)

    def interrupt(self) -> None:
        """Record an interruption."""
        self.update(state=INTERRUPTED, finished=now())

    def prune(self, reason: str) -> None:
        """Record that a search ended the run early, and why."""
        self.update(state=PRUNED, finished=now(), error=reason)

    def finish(self) -> None:
        """Write the digests of all files, status.json included, and then the final state."""
        self._change({"state": FINISHED, "finished": now()})
        text = json_text(self.record)
        digests.write(self.folder.path, {self.folder.status_path.name: text}, self.folder.guard)
        write_text(self.folder.status_path, text, self.folder.guard)

    def _change(self, changes: Mapping[str, Any]) -> None:
        self.record = {**self.record, **changes, "updated": now()}


def record_death(path: Path, reason: str) -> None:
    """Mark a run as failed whose process died without recording it, unless another process has claimed it.

    Raises:
        OSError: the folder cannot be written.
    """
    with suppress(ClaimedError), claim(path) as claimed:
        folder = RunFolder(path, claimed.writing)
        if not folder.finished():
            Status(folder).fail(reason)
            write_text(folder.error_path, reason + "\n", folder.guard)
