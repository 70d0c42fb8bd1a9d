"""SLURM's commands: each ends within seconds, and says so where SLURM does not answer."""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ablate.errors import UserError

SECONDS = 20.0  # that a command may take
LIVE = {"PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD"}


class SlurmError(RuntimeError):
    """A command of SLURM failed or did not answer; says in whose words."""


@dataclass(frozen=True)
class Job:
    """A line of the queue: a job, or one task of an array."""

    id: str  # 123_4
    state: str  # PENDING, RUNNING, …
    reason: str  # why it waits, or the node that it runs on
    start: str  # when it started or is expected to, ISO 8601, or N/A
    name: str

    @property
    def held(self) -> bool:
        """Whether SLURM will not start it by itself: after a node failed under it, for one."""
        return self.state == "REQUEUE_HOLD" or (self.state == "PENDING" and "held" in self.reason.lower())


def available() -> bool:
    """Whether this machine can hand jobs in."""
    return shutil.which("sbatch") is not None


def require() -> None:
    """Refuse to go on without SLURM.

    Raises:
        UserError: no `sbatch` here.
    """
    if not available():
        raise UserError(
            "hydra/launcher=slurm needs `sbatch`, and this machine has none",
            "run the same command on a login node of the cluster, or with hydra/launcher=local",
        )


def call(command: Sequence[str], given: str | None = None) -> str:
    """What a command prints.

    Raises:
        SlurmError: it failed, or took longer than it may.
    """
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmError(f"{command[0]}: {error}") from error
    if done.returncode:
        told = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
        raise SlurmError(f"{command[0]}: {told.splitlines()[-1].removeprefix(f'{command[0]}: ')}")
    return done.stdout


def hosts(nodes: str) -> list[str]:
    """The machines that a list of SLURM's names: gpu[01-03,7].

    Raises:
        SlurmError: scontrol does not answer.
    """
    return call(["scontrol", "show", "hostnames", nodes]).split()


def queue() -> dict[str, Job]:
    """The user's jobs that SLURM has, array tasks one by one.

    Raises:
        SlurmError: squeue does not answer.
    """
    printed = call(["squeue", "-h", "-r", "-u", getpass.getuser(), "-o", "%i|%T|%R|%S|%j"])
    jobs = (Job(*line.split("|", 4)) for line in printed.splitlines() if line.count("|") >= 4)
    return {job.id: job for job in jobs if job.state in LIVE}


def ends(jobs: Iterable[str]) -> dict[str, str]:
    """How jobs ended (OUT_OF_MEMORY, NODE_FAIL, …), as far as the accounting, else the controller, knows."""
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
    """Tasks that one array may have (`MaxArraySize`).

    Raises:
        SlurmError: scontrol does not answer.
    """
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", call(["scontrol", "show", "config"]))
    return max(1, int(found[1]) if found else 1001)


def hand_in(script: str) -> str:
    """The number of the job that this script has become.

    Raises:
        SlurmError: refused, in SLURM's words.
    """
    return call(["sbatch", "--parsable"], given=script).strip().partition(";")[0]


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
