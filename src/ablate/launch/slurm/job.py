"""Program of a job: compute the runs of its pack, each in a worker process, until all are done or time is up.

    python -m ablate.launch.slurm RECORD FIRST

SIGUSR2, which SLURM sends before the time limit and some clusters send before preemption, ends the current
step, writes a checkpoint and puts the job back into the queue. SLURM sends it once, up to a minute early, and
to nobody if the job has not started its processes by then, so that the job sends it to itself, too.
On SIGTERM the job saves a checkpoint but does not requeue itself: after `scancel` it ends; after a preemption
SLURM requeues it. A job that starts again reads its pack again: what is finished or pruned, or failed in this
job, is not run again.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ablate import commands
from ablate.execution import environment, series
from ablate.execution.follower import follow
from ablate.execution.interruption import CLAIM_LOST, FAILURE, INTERRUPTION, Stop, stoppable
from ablate.execution.outcome import SUPERSEDED, Outcome
from ablate.execution.place import Place, from_environment
from ablate.launch.local.pool import Event, WorkerPool
from ablate.launch.slurm import client, snapshot
from ablate.launch.slurm.client import SlurmError
from ablate.store import jobs as records
from ablate.store.damage import DamagedError
from ablate.store.folder import DAMAGED, FAILED, PRUNED, RunFolder

PATIENCE = 600.0  # seconds that a job waits for SLURM to end it
REQUEUES = 1000  # a job that is put back more often than this makes no progress


def main() -> None:
    """Compute the pack. The exit code is 0 once every run has ended; their folders say how."""
    path, first = Path(sys.argv[1]), int(sys.argv[2])
    jobs = records.read(path)
    if jobs is None:
        sys.exit(f"error: {path} is not the record of a submission")
    place = from_environment()
    if place is not None and place.rank:
        _follow(place, jobs.infra)
        return
    runs_dir = path.parents[len(Path(jobs.study).parts) + 2]
    pack = jobs.packs[first + int(os.environ["SLURM_ARRAY_TASK_ID"])]
    if snapshot.state(environment.repository()) != {
        key: jobs.code[key] for key in ("commit", "dirty", "changes")
    }:
        _say("the code has changed since submission; infra.launcher.snapshot=true runs from a copy of it")
    folders = [RunFolder(runs_dir / signature) for signature in pack]
    left = [folder for folder in folders if folder.state() not in (FAILED, PRUNED)]
    ready = [folder.signature for folder in left if not folder.finished()]
    _say(f"{len(pack)} runs, {len(ready)} of them to be done")
    with stoppable() as stop:
        threading.Thread(target=_warn, args=(jobs.infra["launcher"]["signal_seconds"],), daemon=True).start()
        try:
            if place is not None:
                _run_in_group(place, [folder for folder in folders if folder.signature in ready], jobs.infra)
            else:
                workers = max(1, min(jobs.side_by_side, len(ready)))
                outcomes = WorkerPool(runs_dir, ready, workers, jobs.infra).run(_report, lambda: _leave(stop))
                _stop_without_room(outcomes, commands.command("retry", jobs.study, runs_dir=runs_dir))
        except KeyboardInterrupt:
            _end(stop)


def _run_in_group(place: Place, folders: list[RunFolder], infra: dict[str, Any]) -> None:
    """Compute runs that need several machines, as rank 0 of their processes.

    A run that fails ends all processes; what is left of the pack is done when the job starts again.
    """
    runs: dict[Path, dict[str, Any]] = {}
    for folder in folders:
        try:
            runs[folder.path] = folder.config()
        except DamagedError as error:
            _ended(folder.signature, Outcome(DAMAGED, str(error)))
    done = series.run(place, infra["device"], runs, lambda signature: _say(f"{signature} started"), _ended)
    if len(done) < len(runs):
        _say("a run failed and ended the processes of this job; the others are done in the next one")
        _requeue()
        time.sleep(PATIENCE)
    if any(outcome.state == SUPERSEDED for outcome in done.values()):
        sys.exit(CLAIM_LOST)
    if any(outcome.state == FAILED for outcome in done.values()):
        sys.exit(FAILURE)


def _follow(place: Place, infra: dict[str, Any]) -> None:
    """Compute as another rank of the same job: it prints nothing, and ends with rank 0."""
    try:
        follow(place, infra["device"])
    except KeyboardInterrupt:
        time.sleep(PATIENCE)
        sys.exit(INTERRUPTION)


def _stop_without_room(outcomes: dict[str, Outcome], retry: str) -> None:
    """End the job as failed where the disk is full: its other runs were not started."""
    for outcome in outcomes.values():
        if outcome.no_room:
            _say(f"stopped: {outcome.detail}; free space there, then: {retry}")
            sys.exit(FAILURE)


def _warn(seconds: float) -> None:
    """Send SIGUSR2 to this process, as SLURM is asked to, so many seconds before its time limit."""
    with suppress(SlurmError):  # no answer: SLURM's own signal has to do
        left = client.time_left(_number())
        if left is not None:
            time.sleep(max(0.0, left - seconds))
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)


def _leave(stop: Stop) -> None:
    if stop():
        raise KeyboardInterrupt


def _report(event: Event) -> None:
    _, signature, outcome = event
    if outcome is None:
        _say(f"{signature} started")
    else:
        _ended(signature, outcome)


def _ended(signature: str, outcome: Outcome) -> None:
    _say(f"{signature} {outcome.state}  {outcome.detail}".rstrip())


def _end(stop: Stop) -> None:
    """Requeue the job, whose workers have written their checkpoints, or wait for SLURM to act."""
    _say(f"stopped by {stop.requested_by.name if stop.requested_by else 'Ctrl-C'}; checkpoints are written")
    if stop.requested_by == signal.SIGUSR2 and int(os.environ.get("SLURM_RESTART_COUNT", "0")) < REQUEUES:
        _requeue()
    time.sleep(PATIENCE if stop.requested_by else 0)  # a job that ended by itself would not be requeued
    sys.exit(INTERRUPTION)


def _number() -> str:
    return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"


def _requeue() -> None:
    for _ in range(30):
        try:
            client.requeue(_number())
            _say("back in the queue")
            return
        except SlurmError as error:  # the controller may be away for a while
            _say(str(error))
            time.sleep(5)


def _say(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":  # the command in the scripts of jobs that an earlier version submitted
    main()
