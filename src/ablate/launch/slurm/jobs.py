"""Submit jobs: pack the runs, write the record, submit the arrays, add their numbers to the record."""

from __future__ import annotations

import os
import secrets
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ablate import plugins
from ablate.compose.infra import Launcher
from ablate.compose.infra import read_launcher as read_settings
from ablate.errors import UserError
from ablate.execution import environment
from ablate.launch.slurm import client, queue, snapshot
from ablate.launch.slurm.client import SlurmError
from ablate.launch.slurm.snapshot import Snapshot
from ablate.store.files import now, write_text
from ablate.store.jobs import Array, Jobs
from ablate.store.jobs import folder as jobs_folder
from ablate.store.locks import locked

LOCK_SECONDS = 300.0  # that another launcher of the study may take to submit its jobs


def submit_jobs(runs_dir: Path, study: str, ready: Sequence[str], infra: dict[str, Any]) -> Jobs | None:
    """Submit runs, packed and in arrays; return None if all of them are in living jobs already.

    Two launchers of one study take turns, and the second submits what the first did not. The record is
    written first: a launcher that dies after it leaves jobs that are found by their names.

    Raises:
        UserError: SLURM refuses, in its own words; nothing was submitted, or what was is in the record.
    """
    client.require()
    settings = read_settings(infra["launcher"])
    place = jobs_folder(runs_dir, study)
    place.mkdir(parents=True, exist_ok=True)
    with locked(place / ".lock", LOCK_SECONDS):
        before = queue.of_study(runs_dir, study)
        if before.silent:
            raise UserError(f"SLURM does not answer: {before.silent}", "try again when it does")
        try:
            client.cancel(before.held)  # their runs are submitted anew
        except SlurmError as error:
            raise UserError(f"SLURM does not answer: {error}", "try again when it does") from error
        left = [signature for signature in ready if signature not in before.live]
        if not left:
            return None
        size = settings.runs_per_job
        packs = [left[start : start + size] for start in range(0, len(left), size)]
        jobs = Jobs(
            id=f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}",
            study=study,
            created=now(),
            packs=packs,
            arrays=_arrays(len(packs)),
            side_by_side=settings.side_by_side,
            infra=infra,
            code=snapshot.state(environment.repository()),
        )
        source = snapshot.take() if settings.snapshot else None
        jobs.code["snapshot"] = str(source.path[0]) if source else None
        jobs.logs(runs_dir).mkdir(parents=True)
        jobs.save(runs_dir)
        _submit(jobs, runs_dir, settings, source)
    return jobs


def _arrays(packs: int) -> list[Array]:
    """Divide the packs into as few arrays as the cluster accepts."""
    try:
        most = client.largest_array()
    except SlurmError as error:
        raise UserError(f"SLURM does not answer: {error}", "try again when it does") from error
    return [Array(None, first, min(most, packs - first)) for first in range(0, packs, most)]


def _submit(jobs: Jobs, runs_dir: Path, settings: Launcher, source: Snapshot | None) -> None:
    for number, array in enumerate(jobs.arrays):
        script = _script(jobs, array, runs_dir, settings, source)
        write_text(
            jobs.logs(runs_dir) / f"{number}.sbatch", script
        )  # for the user to read: sbatch gets it through a pipe
        try:
            found = client.submit(script)
        except SlurmError as error:
            done = sum(one.count for one in jobs.arrays[:number])
            jobs.arrays = jobs.arrays[:number]
            jobs.packs = jobs.packs[:done]
            if done:
                jobs.save(runs_dir)
            else:
                jobs.path(runs_dir).unlink()
            raise UserError(
                f"SLURM refuses the jobs: {error}",
                "see the settings under infra.launcher, `sinfo`, and `sacctmgr show assoc user=$USER`"
                + (f"; {done} of the jobs were submitted before" if done else ""),
            ) from error
        jobs.arrays[number] = replace(array, job=found)
        jobs.save(runs_dir)


def _script(jobs: Jobs, array: Array, runs_dir: Path, settings: Launcher, source: Snapshot | None) -> str:
    """Return submitit's batch script for an array with our own command: no pickle is written or read."""
    from submitit import SlurmExecutor

    executor = SlurmExecutor(jobs.logs(runs_dir))
    more = {
        key.replace("-", "_"): value for key, value in (settings.sbatch or {}).items()
    }  # these replace ours
    # On one machine a worker starts the other processes of a run; on several SLURM starts them all.
    tasks = jobs.infra["devices"] if settings.nodes > 1 else 1
    given = {
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "cpus_per_task": settings.cpus and max(1, settings.cpus // tasks),
        "gpus_per_node": settings.gpus,
        "mem": settings.memory,
    }
    try:
        executor.update_parameters(
            job_name=jobs.name(array),
            comment=f"ablate {jobs.study}",
            time=settings.time,
            nodes=settings.nodes,
            ntasks_per_node=tasks,
            array_parallelism=settings.parallelism,
            signal_delay_s=settings.signal_seconds,
            stderr_to_stdout=True,
            srun_args=["--kill-on-bad-exit=1"],
            wckey=None,
            setup=[*settings.setup, *_environment(source)],
            additional_parameters={"requeue": True, **more},
            **{key: value for key, value in given.items() if value is not None},
        )
    except (ValueError, TypeError) as error:
        raise UserError(
            f"submitit refuses the settings of infra.launcher: {error}", "see conf/infra"
        ) from error
    executor.parameters["map_count"] = array.count
    arguments = ["-P", "-u", "-m", "ablate.launch.slurm", str(jobs.path(runs_dir)), str(array.first)]
    command = shlex.join([sys.executable, *arguments])
    return str(executor._make_submission_file_text(command, jobs.id))


def _environment(copy: Snapshot | None) -> list[str]:
    """Shell lines before the command: names of plug-ins, and the copied code first on the path."""
    variables = {name: os.environ[name] for name in plugins.VARIABLES if os.environ.get(name)}
    if copy is not None:
        rest = filter(None, [os.environ.get("PYTHONPATH")])
        variables["PYTHONPATH"] = os.pathsep.join([*map(str, copy.path), *rest])
        variables[plugins.COPIES] = str(copy.origins)
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
