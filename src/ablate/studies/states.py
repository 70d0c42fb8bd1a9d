"""State of every run of a study: by its folder, by the cluster's queue, by the cluster's accounting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ablate.execution import serving
from ablate.execution.claim import living_holder
from ablate.execution.staleness import changed_since
from ablate.execution.status import expected_end
from ablate.launch.slurm import client, queue
from ablate.launch.slurm.queue import Queue
from ablate.store import manifest
from ablate.store.folder import DAMAGED, ENDED, FAILED, FINISHED, INTERRUPTED, PENDING, RUNNING, RunFolder
from ablate.store.manifest import Manifest, PlannedRun

LOST = "lost"  # was running, or about to be started, and its process is gone
MISSING = "missing"  # planned, without a folder
STALE = "stale"  # finished, computed by other code than today's
MOST_NAMED = 2  # modules in a note
AGAIN = (FAILED, LOST, DAMAGED, INTERRUPTED, MISSING)  # the states that `ablate retry` runs again


@dataclass(frozen=True)
class Standing:
    """A run, its state, and a note about it."""

    run: PlannedRun
    state: str
    record: dict[str, Any]  # status.json
    note: str = ""
    job: str | None = None
    stale: tuple[str, ...] = ()  # modules of a finished run that are different today

    @property
    def ends(self) -> datetime | None:
        """Expected end of a running run, by the steps of this attempt; None if it is not known."""
        return expected_end(self.record) if self.state == RUNNING else None


@dataclass(frozen=True)
class Overview:
    """A study and all of its runs."""

    manifest: Manifest
    runs: list[Standing]
    queue: Queue
    served: Collection[str] = ()  # runs that a living launcher is about to start

    @property
    def counts(self) -> Counter[str]:
        """Number of runs by state."""
        return Counter(standing.state for standing in self.runs)

    @property
    def active(self) -> bool:
        """True if a run is running, or is about to be started by a job or a launcher.

        A run that has not ended in a job of a cluster that does not answer may be back in its queue.
        """
        silent = self.queue.silent is not None
        return any(
            s.state == RUNNING
            or s.run.signature in self.queue.live
            or (silent and s.state not in ENDED and s.job is not None)
            or (s.state == PENDING and s.run.signature in self.served)
            for s in self.runs
        )

    def select(self, states: Iterable[str]) -> list[Standing]:
        """Return the runs in one of these states."""
        wanted = set(states)
        return [standing for standing in self.runs if standing.state in wanted]


def of_study(runs_dir: Path, study: str) -> Overview:
    """Return all runs of a study with their states.

    Raises:
        UserError: no such study.
    """
    planned = manifest.load(runs_dir, study)
    jobs = queue.of_study(runs_dir, study)
    served = serving.signatures(runs_dir)
    runs = [_standing(RunFolder(runs_dir / run.signature), run, jobs, served) for run in planned.runs]
    ends = client.ends(s.job for s in runs if s.state in (LOST, INTERRUPTED) and s.job)
    runs = _dated(runs_dir, [_explained(standing, ends) for standing in runs])
    return Overview(planned, runs, jobs, served)


def state_of(folder: RunFolder) -> str:
    """Return the state by the folder alone: `lost` if it says `running` and no process holds the claim."""
    state = folder.state()
    if living_holder(folder.path) is not None:
        return state if state in ENDED else RUNNING
    if folder.damages():
        return DAMAGED
    return LOST if state == RUNNING else state


def _standing(folder: RunFolder, run: PlannedRun, jobs: Queue, served: Container[str]) -> Standing:
    record = folder.status()
    state, job = str(record["state"]), jobs.last.get(run.signature)
    holder, live = living_holder(folder.path), jobs.live.get(run.signature)
    if holder is not None and state not in ENDED:
        return Standing(run, RUNNING, record, f"on {holder['host']}", job)
    if holder is None and live is None and (damages := folder.damages()):
        return Standing(run, DAMAGED, record, "; ".join(map(str, damages)), job)
    if state in ENDED:
        return Standing(run, state, record, str(record.get("error") or ""), job)
    if live is not None:
        resumes = f"resumes from epoch {record['epoch']}; " if record.get("epoch") else ""
        return Standing(
            run, PENDING, record, f"{resumes}job {live.id} {live.state.lower()} {live.reason}", live.id
        )
    if job in jobs.held:
        return Standing(run, LOST, record, f"SLURM holds job {job}: {jobs.held[job]}", job)
    if state == RUNNING:
        return Standing(run, LOST, record, f"its process on {record.get('host')} is gone", job)
    if state == PENDING and run.signature in served:
        return Standing(run, PENDING, record, "its launcher starts it", job)
    if state == PENDING and run.signature in jobs.unsent and jobs.silent is None:
        return Standing(run, LOST, record, "its launcher ended before it submitted the job", job)
    if state == PENDING and job is not None and jobs.silent is None:
        return Standing(run, LOST, record, f"job {job} is gone", job)
    if state == PENDING and not record.get("created"):
        return Standing(run, MISSING, record, "", job)
    if state == PENDING and jobs.silent is None:
        return Standing(run, LOST, record, "no launcher and no job is about to start it", job)
    return Standing(run, state, record, "", job)


def _explained(standing: Standing, ends: dict[str, str]) -> Standing:
    """Add how the run's job ended, where that is known."""
    if standing.state not in (LOST, INTERRUPTED) or standing.job not in ends:
        return standing
    note = "; ".join(part for part in (standing.note, f"job {standing.job} {ends[standing.job]}") if part)
    return replace(standing, note=note)


def _dated(runs_dir: Path, runs: Sequence[Standing]) -> list[Standing]:
    """Add to finished runs which of their code has changed since."""
    finished = [standing for standing in runs if standing.state == FINISHED]
    folders = [RunFolder(runs_dir / standing.run.signature) for standing in finished]
    changed = dict(zip(map(id, finished), changed_since(folders), strict=True))
    return [
        replace(standing, stale=tuple(names), note=f"stale: {described(names)} changed since")
        if (names := changed.get(id(standing)))
        else standing
        for standing in runs
    ]


def described(modules: Sequence[str]) -> str:
    """Name up to MOST_NAMED modules."""
    more = f" and {len(modules) - MOST_NAMED} more" if len(modules) > MOST_NAMED else ""
    return ", ".join(modules[:MOST_NAMED]) + more


def until(end: datetime) -> str:
    """Time left until a moment, as 1:05:30."""
    left = max(timedelta(0), end - datetime.now(UTC))
    return str(timedelta(seconds=round(left.total_seconds())))
