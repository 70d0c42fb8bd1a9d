"""Run a submission as jobs of a SLURM cluster; with `infra.launcher.wait`, wait until they have ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from ablate import commands
from ablate.execution.outcome import Outcome
from ablate.launch.alone import check_alone
from ablate.launch.slurm import queue
from ablate.launch.slurm.jobs import submit_jobs
from ablate.launch.submission import Submission
from ablate.store import manifest
from ablate.store.folder import PENDING, RunFolder

Watch = Callable[[Path, str], None]  # shows a study, by folder of runs and name, until nothing is running


def launch(submission: Submission, console: Console, watch: Watch) -> dict[str, Outcome]:
    """Submit what is ready, and return the states of the runs as their folders and the queue have them."""
    check_alone("slurm")
    planned, runs_dir, infra = submission.manifest, submission.runs_dir, submission.infra
    if manifest.find(runs_dir, planned.name) is None:
        planned.save(runs_dir)
    if submission.ready:
        jobs = submit_jobs(runs_dir, planned.name, submission.ready, dict(infra))
        if jobs is None:
            console.print("all of them are in jobs already: another launcher was faster")
        else:
            numbers = ", ".join(f"{array.job} ({array.count})" for array in jobs.arrays)
            where = commands.shown(jobs.path(runs_dir))
            console.print(f"submitted as job arrays {numbers}: {where}", markup=False, soft_wrap=True)
    if infra["launcher"]["wait"]:
        try:
            watch(runs_dir, planned.name)
        except KeyboardInterrupt:
            cancel = commands.command("cancel", planned.name, runs_dir=runs_dir)
            console.print(f"the jobs continue without this display; to end them: {cancel}", soft_wrap=True)
    live = queue.of_study(runs_dir, planned.name).live
    return {name: _outcome(submission.folder(name), in_job=name in live) for name in submission.ready}


def _outcome(folder: RunFolder, in_job: bool) -> Outcome:
    """Outcome by the run's folder; a run in a job is pending, whatever an earlier attempt left there."""
    return Outcome(PENDING if in_job else folder.state(), str(folder.status().get("error") or ""))
