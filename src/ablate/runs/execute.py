"""One run in its folder: claim, train, record how it ended."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.errors import UserError
from ablate.runs.claim import ClaimedError, claim, living_holder
from ablate.runs.infra import complete
from ablate.runs.interruption import FAILURE, INTERRUPTION, Stop, stoppable
from ablate.runs.together import group_for
from ablate.store.files import write_json, write_text
from ablate.store.folder import FAILED, FINISHED, INTERRUPTED, RUNNING, RunFolder

if TYPE_CHECKING:
    from ablate.runs.tracking import Tracker
    from ablate.training.distributed import Group
    from ablate.training.progress import Reporter

SKIPPED, CLAIMED = "skipped", "claimed"


@dataclass(frozen=True)
class Outcome:
    """How a run ended: a state of `folder`, `skipped` (finished before) or `claimed` (by another process)."""

    state: str
    detail: str = ""


def execute(
    path: Path,
    config: Mapping[str, Any],
    reporter: Reporter | None = None,
    group: Group | None = None,
) -> Outcome:
    """Train the run of a folder, or go on with it, and record what happened.

    A finished run is not run again. An exception ends in state `failed` with its traceback in
    error.txt. Ctrl-C, and SIGTERM and SIGUSR2 once the step has ended and a checkpoint is written,
    end in `interrupted` and are raised as KeyboardInterrupt.

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
            return _run(folder, config, reporter, group, claimed.check, stop)
    except ClaimedError as error:
        return Outcome(CLAIMED, str(error))


def _run(
    folder: RunFolder,
    config: Mapping[str, Any],
    reporter: Reporter | None,
    group: Group | None,
    check_claim: Callable[[], None],
    stop: Stop,
) -> Outcome:
    config = complete(config)
    status = _Status(folder)
    exit_code = FAILURE
    result: dict[str, Any] = {}
    tracker: Tracker | None = None
    try:
        status.start(config)
        from ablate.runs.tracking import Tracker
        from ablate.training.progress import reporter as suitable_reporter

        reporter = reporter or suitable_reporter()
        tracker = Tracker(config, folder, reporter.note)
        with nullcontext(group) if group is not None else group_for(config["infra"]) as group:
            result = _train(folder, config, reporter, group, status, tracker, check_claim, stop)
        exit_code = 0
        return Outcome(FINISHED, f"test top-1 {result['test_top1']:.2f} %")
    except ClaimedError:  # not ours any more: nothing is written
        raise
    except KeyboardInterrupt:
        exit_code = INTERRUPTION
        status.update(state=INTERRUPTED, finished=_now())
        raise
    except Exception as error:
        told = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        # The state before the traceback: on a full disk the shorter file has the better chance.
        status.update(state=FAILED, finished=_now(), error=told.splitlines()[0])
        write_text(folder.error_path, traceback.format_exc())
        return Outcome(FAILED, told)
    finally:
        if tracker is not None:
            tracker.finish(result, exit_code)


def _train(
    folder: RunFolder,
    config: Mapping[str, Any],
    reporter: Reporter,
    group: Group,
    status: _Status,
    tracker: Tracker,
    check_claim: Callable[[], None],
    stop: Stop,
) -> dict[str, Any]:
    import torch

    from ablate.runs import environment
    from ablate.training.device import name as device_name
    from ablate.training.loop import Hooks, Training

    def on_epoch(metrics: dict[str, Any]) -> None:
        status.update(epoch=metrics["epoch"])
        tracker.log(metrics)

    group.told((str(folder.path), config))
    training = Training(config, folder, reporter, Hooks(on_epoch, check_claim, stop), group)
    described = environment.describe(
        device_name(training.device), torch.get_num_threads(), group.world, training.numerics
    )
    write_json(folder.environment_path, described)
    result = training.run()
    check_claim()
    write_json(folder.result_path, result)
    folder.error_path.unlink(missing_ok=True)
    status.update(state=FINISHED, finished=_now())
    return result


def record_death(path: Path, reason: str) -> None:
    """Mark a run as failed whose process died without a word, unless another one is at work on it."""
    folder = RunFolder(path)
    if not folder.finished() and living_holder(path) is None:
        write_text(folder.error_path, reason + "\n")
        _Status(folder).update(state=FAILED, finished=_now(), error=reason)


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
        self.record = {**self.record, **changes, "updated": _now()}
        write_json(self.folder.status_path, self.record)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
