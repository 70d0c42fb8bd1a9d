"""Trials of a search while they are trained: each epoch is reported to Optuna, which may prune the trial.

Launchers differ in where runs are computed: in this process, in others, or on other machines. All of them
write an epoch's figures into the run's folder, and look there for a request to end.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ablate.execution import pruning
from ablate.store.folder import RUNNING, RunFolder

if TYPE_CHECKING:
    import optuna

SECONDS = 0.5  # between two looks at the folders


class Epochs:
    """The epochs of one trial, each reported once."""

    def __init__(self, trial: optuna.Trial, folder: RunFolder, metric: str) -> None:
        self.trial, self.folder, self.metric = trial, folder, metric
        reported = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        self.last = max(reported, default=0)  # of an earlier process
        self.asked = False

    def report(self) -> None:
        """Report the epochs that are new in the run's folder; ask the run to end if the pruner says so."""
        for line in self.folder.metrics():
            epoch, value = line["epoch"], line.get(self.metric)
            if epoch <= self.last or not isinstance(value, (int, float)) or not math.isfinite(value):
                continue
            self.trial.report(value, epoch)
            self.last = epoch
            running = self.folder.state() == RUNNING
            if running and not self.asked and self.trial.should_prune():
                self.asked = True
                pruning.request(
                    self.folder, f"pruned by the search: {self.metric} {value:.4g} at epoch {epoch}"
                )


@contextmanager
def watched(trials: Sequence[Epochs]) -> Iterator[None]:
    """Report the trials' epochs from a thread, until the block ends."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(SECONDS):
            for epochs in trials:
                with suppress(Exception):  # of a storage, a lock perhaps; all is reported again at the end
                    epochs.report()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
