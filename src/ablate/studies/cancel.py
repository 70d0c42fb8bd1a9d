"""End a study's jobs and processes; what is done stays, and checkpoints are written."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ablate.errors import UserError
from ablate.execution.claim import is_here, living_holder
from ablate.launch.slurm import client
from ablate.launch.slurm.client import SlurmError
from ablate.store.folder import RUNNING
from ablate.studies import states


@dataclass(frozen=True)
class Cancellation:
    """Result of a cancellation: the ended jobs and processes, and those that continue.

    Attributes:
        silent: why SLURM did not answer, so that its jobs continue; None if it did.
        jobs: numbers of the cancelled jobs.
        launchers: process numbers of the launchers that received SIGTERM.
        elsewhere: other machines that compute runs outside jobs.
    """

    silent: str | None
    jobs: Collection[str]
    launchers: Collection[int]
    elsewhere: Collection[str]


def cancel(runs_dir: Path, study: str) -> Cancellation:
    """Cancel the living jobs of a study, and stop the launchers on this machine that compute its runs.

    Raises:
        UserError: no such study; SLURM refuses.
    """
    overview = states.of_study(runs_dir, study)
    jobs = {*overview.queue.jobs, *overview.queue.held}
    if jobs:
        try:
            client.cancel(jobs)
        except SlurmError as error:
            raise UserError(str(error), "try again, or use scancel") from error
    elsewhere, launchers = set(), set()
    for standing in overview.select([RUNNING]):
        if standing.run.signature in overview.queue.live:
            continue
        holder = living_holder(runs_dir / standing.run.signature)
        if holder is not None and is_here(holder):
            launchers.add(int(holder.get("launcher") or holder["pid"]))
        elif holder is not None:
            elsewhere.add(str(holder["host"]))
    stopped = [process for process in launchers if _stop(process)]
    return Cancellation(overview.queue.silent, jobs, stopped, sorted(elsewhere))


def _stop(process: int) -> bool:
    try:
        os.kill(process, signal.SIGTERM)
    except ProcessLookupError:
        return False
    return True
