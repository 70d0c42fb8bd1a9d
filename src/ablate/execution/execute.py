"""One run in its folder: claim, train, record how it ended."""

from __future__ import annotations

import errno
import os
import socket
import traceback
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.compose.infra import complete
from ablate.errors import UserError
from ablate.execution.claim import Claim, ClaimedError, LostClaimError, claim
from ablate.execution.interruption import FAILURE, INTERRUPTION, Stop, stoppable
from ablate.execution.process_group import group_for
from ablate.store import digests
from ablate.store.files import json_text, write_json, write_text
from ablate.store.folder import FAILED, FINISHED, INTERRUPTED, RUNNING, RunFolder
from ablate.store.locks import LockedError

if TYPE_CHECKING:
    from ablate.execution.tracking import Tracker
    from ablate.training.distributed import Group
    from ablate.training.progress import Reporter

SKIPPED, CLAIMED, SUPERSEDED = "skipped", "claimed", "superseded"
# Errors that every other run of the same folder would meet too.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


@dataclass(frozen=True)
class Outcome:
    """End of a run.

    Attributes:
        state: a state of `folder`; `skipped`: finished before; `claimed`: another process was at work on it;
            `superseded`: another process claimed it while this one stood still; `damaged`: its frozen
            configuration cannot be used.
        detail: for the user.
        no_room: the disk is full or cannot be written, so that no other run can succeed either.
    """

    state: str
    detail: str = ""
    no_room: bool = False


def execute(
    path: Path,
    config: Mapping[str, Any],
    reporter: Reporter | None = None,
    group: Group | None = None,
) -> Outcome:
    """Train the run of a folder, or go on with it, and record what happened.

    A finished run is not run again. An exception ends in state `failed` with its traceback in
    error.txt. Ctrl-C, and SIGTERM and SIGUSR2 once the step has ended and a checkpoint is written,
    end in `interrupted` and are raised as KeyboardInterrupt. Once another process has claimed the run, this
    one writes nothing more into the folder.

    Args:
        path: the run folder.
        config: the frozen configuration.
        reporter: shows progress; chosen by where the output goes if None.
        group: whose first process this is; by infra.devices if None.
    """
    folder = RunFolder(path)
    if folder.finished():
        return Outcome(SKIPPED)
    try:
        with claim(path) as claimed, stoppable() as stop:
            if folder.finished():  # by the process that held the claim until now
                return Outcome(SKIPPED)
            return _run(RunFolder(path, claimed.writing), config, reporter, group, claimed, stop)
    except LostClaimError as error:
        return Outcome(SUPERSEDED, str(error))
    except ClaimedError as error:
        return Outcome(CLAIMED, str(error))
    except (OSError, LockedError) as error:  # the claim itself could not be written
        return failure(error, path)


def _run(
    folder: RunFolder,
    config: Mapping[str, Any],
    reporter: Reporter | None,
    group: Group | None,
    claimed: Claim,
    stop: Stop,
) -> Outcome:
    config = complete(config)
    status = _Status(folder)
    exit_code = FAILURE
    result: dict[str, Any] = {}
    tracker: Tracker | None = None
    try:
        status.start(config)
        from ablate.execution.tracking import Tracker
        from ablate.training.progress import reporter as suitable_reporter

        reporter = reporter or suitable_reporter()
        tracker = Tracker(config, folder, reporter.note)
        with nullcontext(group) if group is not None else group_for(config["infra"]) as group:
            result = _train(folder, config, reporter, group, status, tracker, claimed, stop)
        exit_code = 0
        return Outcome(FINISHED, f"test top-1 {result['test_top1']:.2f} %")
    except LostClaimError:
        raise
    except KeyboardInterrupt:
        exit_code = INTERRUPTION
        with suppress(OSError, LockedError):  # on a full disk; what is not recorded counts as lost
            status.update(state=INTERRUPTED, finished=_now())
        raise
    except Exception as error:
        return _recorded(folder, status, claimed, error)
    finally:
        if tracker is not None and not claimed.lost:  # its files are in the folder too
            tracker.finish(result, exit_code)


def _recorded(folder: RunFolder, status: _Status, claimed: Claim, error: Exception) -> Outcome:
    """Write a failure into the folder, as far as that is possible.

    Raises:
        LostClaimError: the folder is another process's by now; nothing was written.
    """
    traceback_text = traceback.format_exc()
    failed = failure(error, folder.path)
    try:
        claimed.ensure()
        # The state before the traceback: on a full disk the shorter file has the better chance.
        status.update(state=FAILED, finished=_now(), error=failed.detail.splitlines()[0])
        write_text(folder.error_path, traceback_text, folder.guard)
    except (OSError, LockedError) as second:
        first_line, *rest = failed.detail.splitlines()
        recorded = f"{first_line} (not recorded in the run's folder: {str(second).splitlines()[0]})"
        return replace(failed, detail="\n".join([recorded, *rest]))
    return failed


def failure(error: Exception, path: Path) -> Outcome:
    """Outcome of an exception. An error of the disk that names no path gets the run's."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        error.filename = error.filename or str(path)
        return Outcome(FAILED, str(error), no_room=True)
    return Outcome(FAILED, str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")


def _train(
    folder: RunFolder,
    config: Mapping[str, Any],
    reporter: Reporter,
    group: Group,
    status: _Status,
    tracker: Tracker,
    claimed: Claim,
    stop: Stop,
) -> dict[str, Any]:
    import torch

    from ablate.execution import environment
    from ablate.training.device import name as device_name
    from ablate.training.loop import Hooks, Training

    def on_epoch(metrics: dict[str, Any]) -> None:
        status.update(epoch=metrics["epoch"])
        tracker.log(metrics)

    group.told((str(folder.path), config))
    training = Training(config, folder, reporter, Hooks(on_epoch, claimed.check, stop), group)
    described = environment.describe(
        device_name(training.device), torch.get_num_threads(), group.world, training.numerics
    )
    write_json(folder.environment_path, described, folder.guard)
    result = training.run()
    write_json(folder.result_path, result, folder.guard)
    with folder.guard():
        folder.error_path.unlink(missing_ok=True)
    status.finish()
    return result


def record_death(path: Path, reason: str) -> None:
    """Mark a run as failed whose process died without a word, unless another one is at work on it.

    Raises:
        OSError: the folder cannot be written.
    """
    with suppress(ClaimedError), claim(path) as claimed:
        folder = RunFolder(path, claimed.writing)
        if not folder.finished():
            _Status(folder).update(state=FAILED, finished=_now(), error=reason)
            write_text(folder.error_path, reason + "\n", folder.guard)


class _Status:
    """status.json, rewritten whole at every change."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.record: dict[str, Any] = folder.status()

    def start(self, config: Mapping[str, Any]) -> None:
        """A new attempt begins in this process."""
        self.update(
            state=RUNNING,
            attempt=int(self.record.get("attempt") or 0) + 1,
            started=_now(),
            finished=None,
            host=socket.gethostname(),
            pid=os.getpid(),
            error=None,
            epochs=config["recipe"].get("epochs"),
            first_epoch=self.record.get("epoch") or 0,
        )

    def update(self, **changes: Any) -> None:
        """Change fields and write."""
        self._change(changes)
        write_json(self.folder.status_path, self.record, self.folder.guard)

    def finish(self) -> None:
        """Write the digests of all files, this one's included, and then the last state."""
        self._change({"state": FINISHED, "finished": _now()})
        text = json_text(self.record)
        digests.write(self.folder.path, {self.folder.status_path.name: text}, self.folder.guard)
        write_text(self.folder.status_path, text, self.folder.guard)

    def _change(self, changes: Mapping[str, Any]) -> None:
        self.record = {**self.record, **changes, "updated": _now()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
