"""The state of a run in its folder: status.json, written by the process that has claimed the run."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.execution.claim import ClaimedError, claim
from ablate.store import digests
from ablate.store.files import json_text, now, write_json, write_text
from ablate.store.folder import FAILED, FINISHED, INTERRUPTED, PRUNED, RUNNING, RunFolder
from ablate.store.locks import LockedError

if TYPE_CHECKING:
    from ablate.training.progress import Reporter


STEPS = ("steps", "step", "first_step", "stepping", "stepped")  # of this attempt; see `Steps`


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
            **dict.fromkeys(STEPS),
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


def expected_end(record: Mapping[str, Any]) -> datetime | None:
    """Return when a run will have trained, by the steps of this attempt after its first one.

    The first step is left out: kernels are compiled and data are read before it ends. None as long as it
    is not known.
    """
    if any(record.get(name) is None for name in STEPS) or record["step"] <= record["first_step"]:
        return None
    begun, latest = (datetime.fromisoformat(str(record[name])) for name in ("stepping", "stepped"))
    each = (latest - begun) / (record["step"] - record["first_step"])
    return latest + each * (record["steps"] - record["step"])


def share_done(record: Mapping[str, Any]) -> float:
    """Return the share of a run's steps that are done, or of its epochs where steps are not known."""
    for done, whole in (("step", "steps"), ("epoch", "epochs")):
        if record.get(whole) and record.get(done) is not None:
            return min(1.0, float(record[done]) / float(record[whole]))
    return 0.0


class Steps:
    """A reporter that also keeps the steps of a run in status.json, for its expected end.

    It writes after the second step and then at most every SECONDS: the file is small, and its lock is short.
    """

    SECONDS = 10.0

    def __init__(self, reporter: Reporter, status: Status) -> None:
        self.reporter, self.status = reporter, status
        self.steps = self.step = self.first = 0
        self.begun: str | None = None
        self.written = 0.0

    def started(self, title: str, steps: int, done: int) -> None:
        """Report that training begins, after `done` of `steps` steps."""
        self.steps, self.step, self.first, self.begun = steps, done, done + 1, None
        self.reporter.started(title, steps, done)

    def stepped(self, loss: float) -> None:
        """Count one optimizer step, and report it."""
        self.step += 1
        self.reporter.stepped(loss)
        if self.begun is None:
            self.begun = now()
        elif time.monotonic() - self.written >= self.SECONDS:
            self.written = time.monotonic()
            with suppress(OSError, LockedError):  # on a full disk the run continues without
                self.status.update(**self._record())

    def epoch_ended(self, metrics: dict[str, Any], epochs: int) -> None:
        """Report an epoch, trained and evaluated."""
        if self.begun is not None:
            self.status.record.update(self._record())  # written with the number of the epoch
        self.reporter.epoch_ended(metrics, epochs)

    def _record(self) -> dict[str, Any]:
        return dict(zip(STEPS, (self.steps, self.step, self.first, self.begun, now()), strict=True))

    def note(self, text: str) -> None:
        """Report something that the user should know."""
        self.reporter.note(text)

    def finished(self) -> None:
        """Report that training has ended, successfully or not."""
        self.reporter.finished()
