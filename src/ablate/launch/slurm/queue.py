"""The queue as a study sees it: which of its runs are in living jobs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from ablate.launch.slurm import client
from ablate.launch.slurm.client import Job, SlurmError
from ablate.store import jobs as records
from ablate.store.folder import ENDED, RunFolder
from ablate.store.jobs import Array, Jobs


@dataclass
class Queue:
    """The jobs of a study.

    Attributes:
        live: signature → the job of the queue that is to compute the run.
        last: signature → number of the last job that had the run, living or not.
        jobs: all living jobs of the study.
        held: jobs that SLURM holds, with its reason; they are not living.
        unsent: signatures of runs whose launcher ended before it submitted them.
        silent: why the cluster did not answer; None if it did.
    """

    live: dict[str, Job] = field(default_factory=dict)
    last: dict[str, str] = field(default_factory=dict)
    jobs: set[str] = field(default_factory=set)
    held: dict[str, str] = field(default_factory=dict)
    unsent: set[str] = field(default_factory=set)
    silent: str | None = None


def of_study(runs_dir: Path, study: str) -> Queue:
    """Return the study's jobs, by its records and the cluster's queue; empty without records.

    A living job computes a run that failed in it no more, even if the run is requested again.
    """
    found, submissions = Queue(), records.of_study(runs_dir, study)
    if not submissions:
        return found
    queued: dict[str, Job] = {}
    try:
        queued = client.queue()
    except SlurmError as error:
        found.silent = str(error)
    for submission in submissions:
        known = _named(submission, queued)
        for number, pack in enumerate(known.packs):
            if (job := known.job_of(number)) is None:
                found.unsent.update(pack)
                continue
            found.unsent.difference_update(pack)
            found.last.update(dict.fromkeys(pack, job))
            if job in queued and queued[job].held:
                found.held[job] = queued[job].reason
            elif job in queued:
                found.jobs.add(job)
                ahead = (s for s in pack if _ahead(RunFolder(runs_dir / s), known.created))
                found.live.update(dict.fromkeys(ahead, queued[job]))
    return found


def _ahead(folder: RunFolder, created: str) -> bool:
    record = folder.status()
    return record["state"] not in ENDED and (record.get("asked") or "") <= created


def _named(submission: Jobs, queued: dict[str, Job]) -> Jobs:
    """Find, by their names, the numbers of arrays whose launcher died before it recorded them."""
    if all(array.job is not None for array in submission.arrays):
        return submission
    numbers = {job.name: job.id.partition("_")[0] for job in queued.values()}
    arrays = [
        array
        if array.job is not None
        else Array(numbers.get(submission.name(array)), array.first, array.count)
        for array in submission.arrays
    ]
    return replace(submission, arrays=arrays)
