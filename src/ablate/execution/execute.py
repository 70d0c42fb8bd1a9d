"""One run in its folder: claim it, train it, record how it ended."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate import plugins
from ablate.commands import command
from ablate.compose.infra import complete
from ablate.execution import environment
from ablate.execution.claim import Claim, ClaimedError, LostClaimError, claim
from ablate.execution.interruption import FAILURE, INTERRUPTION, Stop, stoppable
from ablate.execution.outcome import CLAIMED, SKIPPED, SUPERSEDED, Outcome, failure
from ablate.execution.process_group import group_for
from ablate.execution.pruning import Pruning
from ablate.execution.status import Status, Steps
from ablate.store import metrics
from ablate.store.files import write_json, write_text
from ablate.store.folder import FINISHED, PRUNED, RunFolder
from ablate.store.locks import LockedError
from ablate.store.shapes import BEGINNING

if TYPE_CHECKING:
    from ablate.execution.tracking import Tracker
    from ablate.training.context import RunContext
    from ablate.training.distributed import Group
    from ablate.training.progress import Reporter


def execute(
    path: Path,
    config: Mapping[str, Any],
    reporter: Reporter | None = None,
    group: Group | None = None,
) -> Outcome:
    """Train the run of a folder, or resume it, and record what happened.

    A finished run is not run again. An exception ends in state `failed` with its traceback in
    error.txt. Ctrl-C, and SIGTERM and SIGUSR2 once the step has ended and a checkpoint is written,
    end in `interrupted` and are raised as KeyboardInterrupt. A run that a search asks to end is `pruned`,
    with a checkpoint as well. Once another process has claimed the run, this one writes nothing more into
    the folder.

    Args:
        path: the run folder.
        config: the frozen configuration.
        reporter: shows progress; if None, one that suits the terminal or file that the output goes to.
        group: the processes of which this one is rank 0; if None, infra.devices processes.
    """
    if RunFolder(path).finished():
        return Outcome(SKIPPED)
    plugins.load()
    try:
        with claim(path) as claimed, stoppable() as stop:
            folder = RunFolder(path, claimed.writing)
            if folder.finished():  # by the process that held the claim until now
                return Outcome(SKIPPED)
            return _Attempt(folder, complete(config), claimed, stop).run(reporter, group)
    except LostClaimError as error:
        return Outcome(SUPERSEDED, str(error))
    except ClaimedError as error:
        return Outcome(CLAIMED, str(error))
    except (OSError, LockedError) as error:  # the claim itself could not be written
        return failure(error, path)


class _Attempt:
    """One attempt at a run, in a folder that this process has claimed."""

    def __init__(self, folder: RunFolder, config: Mapping[str, Any], claimed: Claim, stop: Stop) -> None:
        self.folder, self.config, self.claim, self.stop = folder, config, claimed, stop
        self.status = Status(folder)
        self.pruning = Pruning(folder)
        self.result: dict[str, Any] = {}
        self.tracker: Tracker | None = None

    def run(self, reporter: Reporter | None, group: Group | None) -> Outcome:
        """Train, and record the end in the folder and in W&B.

        Raises:
            KeyboardInterrupt: the run was interrupted, which is recorded.
            LostClaimError: another process claimed the run; nothing more was written.
        """
        exit_code = FAILURE
        try:
            self.status.start(self.config)
            reporter = reporter or self._reporter()
            self.tracker = self._tracker(reporter)
            with nullcontext(group) if group is not None else group_for(self.config["infra"]) as group:
                outcome = self._train(self._context(reporter, group))
            exit_code = 0
            return outcome
        except LostClaimError:
            raise
        except KeyboardInterrupt:
            exit_code = INTERRUPTION
            with suppress(OSError, LockedError):  # on a full disk; what is not recorded counts as lost
                self.status.interrupt()
            raise
        except Exception as error:
            return self._record(error)
        finally:
            if self.tracker is not None and not self.claim.lost:  # W&B's files are in the folder too
                self.tracker.finish(self.result, exit_code)

    def _reporter(self) -> Reporter:
        from ablate.training.progress import reporter

        return reporter()

    def _tracker(self, reporter: Reporter) -> Tracker:
        from ablate.execution.tracking import Tracker

        return Tracker(self.config, self.folder, reporter.note)

    def _context(self, reporter: Reporter, group: Group) -> RunContext:
        from ablate.training.context import RunContext

        return RunContext(
            config=self.config,
            folder=self.folder,
            reporter=Steps(reporter, self.status),
            group=group,
            stop=self.stop,
            prune=self.pruning,
            on_step=self.claim.check,
            on_epoch=self._record_epoch,
        )

    def _record_epoch(self, metrics: dict[str, Any]) -> None:
        self.status.update(epoch=metrics["epoch"])
        if self.tracker is not None:
            self.tracker.log(metrics)

    def _train(self, context: RunContext) -> Outcome:
        """Train, and write environment.json, result.json and the digests of all files."""
        import torch

        from ablate.training.device import name as device_name
        from ablate.training.loop import PrunedError, Training
        from ablate.training.provenance import facts

        folder, group = self.folder, context.group
        group.broadcast((str(folder.path), self.config))  # the other ranks train the same run
        training = Training(context)
        # with a recipe in iterations, the epochs are known once the data are
        if self.status.record.get("epochs") != training.epochs:
            self.status.update(epochs=training.epochs)
        resumes = any(folder.path.glob("checkpoint.*"))
        earlier = folder.environment()
        code = environment.code_of(training.modules(), facts(self.config), earlier, resumes=resumes)
        if changed := code.get("resumed"):
            name = (self.config.get("study") or {}).get("name") or folder.signature
            anew = command("retry", name, "--stale", runs_dir=folder.path.parent)
            context.reporter.note(
                f"the run began with other code: {', '.join(changed)}; to start anew: {anew}"
            )
        described = environment.describe(
            device_name(training.device), torch.get_num_threads(), group.world_size, training.numerics, code
        )
        if resumes and earlier is not None and BEGINNING in earlier:
            described[BEGINNING] = earlier[BEGINNING]
        write_json(folder.environment_path, described, folder.guard)
        try:
            self.result = training.run()
        except PrunedError:
            self.status.prune(str(self.pruning.reason))
            return Outcome(PRUNED, str(self.pruning.reason))
        write_json(folder.result_path, self.result, folder.guard)
        with folder.guard():
            folder.error_path.unlink(missing_ok=True)
        self.status.finish()
        return Outcome(FINISHED, metrics.of_run(self.config).test(self.result))

    def _record(self, error: Exception) -> Outcome:
        """Write a failure into the folder, as far as that is possible.

        Raises:
            LostClaimError: another process has claimed the folder; nothing was written.
        """
        traceback_text = traceback.format_exc()
        failed = failure(error, self.folder.path)
        try:
            self.claim.ensure()
            # The state before the traceback: on a full disk the shorter file has the better chance.
            self.status.fail(failed.detail.splitlines()[0])
            write_text(self.folder.error_path, traceback_text, self.folder.guard)
        except (OSError, LockedError) as second:
            first_line, *rest = failed.detail.splitlines()
            recorded = f"{first_line} (not recorded in the run's folder: {str(second).splitlines()[0]})"
            return replace(failed, detail="\n".join([recorded, *rest]))
        return failed
