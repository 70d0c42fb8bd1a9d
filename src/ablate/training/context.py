"""Everything that the training of one run gets from outside: run, folder, processes and callbacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ablate.store.folder import RunFolder
from ablate.training.distributed import SOLO, Group
from ablate.training.progress import Reporter


@dataclass(frozen=True)
class RunContext:
    """One run, the processes that compute it, and callbacks.

    Attributes:
        config: the run's configuration, complete.
        folder: the run folder; its `guard` protects every change of a file.
        reporter: shows progress.
        group: the processes that compute the run together; rank 0 writes into the folder.
        stop: returns True once the run has to end after the current step, with a checkpoint.
        prune: returns True once a search asks the first process to end the run in the same way.
        on_step: called after each optimizer step; an exception ends the run.
        on_epoch: called with the figures of an epoch once they are on disk.
    """

    config: Mapping[str, Any]
    folder: RunFolder
    reporter: Reporter
    group: Group = SOLO
    stop: Callable[[], bool] = lambda: False
    prune: Callable[[], bool] = lambda: False
    on_step: Callable[[], None] = lambda: None
    on_epoch: Callable[[dict[str, Any]], None] = lambda metrics: None
