"""`ablate cancel`: end a study's jobs and processes; what is done stays, and checkpoints are written."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from ablate.errors import UserError
from ablate.execution.claim import is_here, living_holder
from ablate.launch.slurm import client
from ablate.launch.slurm.client import SlurmError
from ablate.store.folder import RUNNING
from ablate.studies import states


def cancel(runs_dir: Path, study: str) -> None:
    """Cancel the living jobs of a study, and the launchers on this machine that have its runs at work.

    Raises:
        UserError: no such study; SLURM refuses.
    """
    overview = states.of_study(runs_dir, study)
    if overview.queue.silent:
        print(f"SLURM does not answer, so its jobs go on: {overview.queue.silent}")
    ended = {*overview.queue.jobs, *overview.queue.held}
    if ended:
        try:
            client.cancel(ended)
        except SlurmError as error:
            raise UserError(str(error), "try again, or use scancel") from error
        print(f"{len(ended)} jobs cancelled; their runs write a checkpoint first")
    elsewhere, launchers = set(), set()
    for standing in overview.select([RUNNING]):
        if standing.run.signature in overview.queue.live:
            continue
        holder = living_holder(runs_dir / standing.run.signature)
        if holder is not None and is_here(holder):
            launchers.add(int(holder.get("launcher") or holder["pid"]))
        elif holder is not None:
            elsewhere.add(str(holder["host"]))
    for process in launchers:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)
            print(f"launcher {process} was asked to stop; its runs write a checkpoint first")
    for host in sorted(elsewhere):
        print(f"runs are at work on {host}, in no job of SLURM: cancel them there")
    if not ended and not launchers and not elsewhere:
        print(f"{study}: nothing is at work and nothing waits")
