"""Commands of SLURM. Each ends within seconds and raises an error if SLURM does not answer."""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ablate.errors import UserError

SECONDS = 20.0  # limit of a command
LIVE = {"PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD"}


class SlurmError(RuntimeError):
    """A command of SLURM failed or did not answer; the message names it and quotes SLURM."""


@dataclass(frozen=True)
class Job:
    """One line of the queue: a job, or one task of an array."""

    id: str  # 123_4
    state: str  # PENDING, RUNNING, …
    reason: str  # why it waits, or the node that it runs on
    start: str  # when it started or is expected to, ISO 8601, or N/A
    name: str

    @property
    def held(self) -> bool:
        """True if SLURM will not start the job by itself, for instance because its node failed."""
        return self.state == "REQUEUE_HOLD" or (self.state == "PENDING" and "held" in self.reason.lower())


def available() -> bool:
    """Return True if this machine can submit jobs."""
    return shutil.which("sbatch") is not None


def require() -> None:
    """Refuse to continue without SLURM.

    Raises:
        UserError: no `sbatch` here.
    """
    if not available():
        raise UserError(
            "hydra/launcher=slurm needs `sbatch`, and this machine has none",
            "run the same command on a login node of the cluster, or with hydra/launcher=local",
        )


def call(command: Sequence[str], given: str | None = None) -> str:
    """Run a command and return its output.

    Raises:
        SlurmError: it failed, or took longer than it may.
    """
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmError(f"{command[0]}: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
        raise SlurmError(f"{command[0]}: {said.splitlines()[-1].removeprefix(f'{command[0]}: ')}")
    return done.stdout


def queue() -> dict[str, Job]:
    """Return the user's jobs in the queue by number, with each task of an array as a job.

    Raises:
        SlurmError: squeue does not answer.
    """
    printed = call(["squeue", "-h", "-r", "-u", getpass.getuser(), "-o", "%i|%T|%R|%S|%j"])
    jobs = (Job(*line.split("|", 4)) for line in printed.splitlines() if line.count("|") >= 4)
    return {job.id: job for job in jobs if job.state in LIVE}


def ends(jobs: Iterable[str]) -> dict[str, str]:
    """Return how jobs ended (OUT_OF_MEMORY, NODE_FAIL, …), by the accounting or else the controller."""
    wanted = sorted(set(jobs))
    if not wanted:
        return {}
    try:
        printed = call(["sacct", "-X", "-n", "-P", "-o", "JobID,State", "-j", ",".join(wanted)])
        found = dict(line.split("|", 1) for line in printed.splitlines() if "|" in line)
        if found:
            return {job: state for job, state in found.items() if job in wanted}
    except SlurmError:  # no accounting here
        pass
    found = {}
    for array in sorted({job.partition("_")[0] for job in wanted})[:20]:
        try:
            printed = call(["scontrol", "show", "job", "-o", array])
        except SlurmError:  # forgotten, or the controller is away
            continue
        for line in printed.splitlines():
            fields = dict(re.findall(r"(\w+)=(\S*)", line))
            found[f"{fields.get('ArrayJobId')}_{fields.get('ArrayTaskId')}"] = fields.get("JobState", "")
    return {job: state for job, state in found.items() if job in wanted}


def largest_array() -> int:
    """Return the number of tasks that one array may have (`MaxArraySize`).

    Raises:
        SlurmError: scontrol does not answer.
    """
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", call(["scontrol", "show", "config"]))
    return max(1, int(found[1]) if found else 1001)


def submit(script: str) -> str:
    """Submit a batch script and return the number of its job.

    Raises:
        SlurmError: refused, in SLURM's words.
    """
    return call(["sbatch", "--parsable"], given=script).strip().partition(";")[0]


def time_left(job: str) -> float | None:
    """Return the seconds until a running job's time limit; None if it has none.

    Raises:
        SlurmError: squeue does not answer.
    """
    printed = call(["squeue", "-h", "-j", job, "-o", "%L"]).strip()  # 2-03:04:05, 4:05, UNLIMITED, INVALID
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", printed)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return 86400.0 * days + 3600 * hours + 60 * minutes + seconds


def requeue(job: str) -> None:
    """Put a job back into the queue: it is killed where it runs.

    Raises:
        SlurmError: refused, or no answer.
    """
    call(["scontrol", "requeue", job])


def cancel(jobs: Iterable[str]) -> None:
    """End jobs, or drop them from the queue.

    Raises:
        SlurmError: no answer.
    """
    wanted = sorted(jobs)
    for start in range(0, len(wanted), 500):
        call(["scancel", *wanted[start : start + 500]])
