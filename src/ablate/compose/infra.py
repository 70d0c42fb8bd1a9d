"""Settings of `infra`: where and how runs are computed. They are checked before anything starts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ablate.configuration import read_settings
from ablate.errors import UserError, unknown

KERNELS = ("auto", "reference")  # as in `kernels.dispatch`, without torch: `retry` reads this
WandbMode = Literal["offline", "online", "disabled"]
TRACKING: dict[str, WandbMode] = {"wandb_offline": "offline", "wandb": "online", "none": "disabled"}
MEMORY_FORMATS = ("auto", "contiguous", "channels_last")
# Settings that configurations frozen by an earlier version lack, with the behavior of that version.
EARLIER: Mapping[str, Any] = {
    "compile": False,
    "memory_format": "contiguous",
    "tf32": None,
    "weights": None,
    "plugins": [],
    "callbacks": [],
}


@dataclass(frozen=True)
class Infra:
    """Settings of `conf/infra`, the one part of the configuration outside a run's identity."""

    runs_dir: str
    device: str
    devices: int
    threads: int | None
    kernels: str
    compile: bool
    memory_format: str
    tf32: bool | None  # None: PyTorch's default, in configurations frozen earlier
    workers: str  # `auto`, or a number
    data_root: str | None
    download: bool
    weights: str | None
    tracking: str
    wandb_project: str
    retry_failed: bool
    checkpoint_minutes: float
    launcher: Mapping[str, Any]
    plugins: tuple[str, ...] = ()
    callbacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Launcher:
    """Settings of the launchers; all but `workers` belong to `slurm`.

    Attributes:
        workers: number of worker processes of hydra/launcher=local.
        wait: show the study until all its runs have ended.
        time: minutes of a job.
        nodes: machines of a job, each with infra.devices processes that compute a run together.
        cpus, gpus, memory: of a job on each machine; memory in SLURM's notation, as 16G.
        parallelism: number of jobs of an array that run at a time.
        runs_per_job: number of runs in one job, which imports PyTorch once for all of them.
        side_by_side: number of those runs that run at a time.
        signal_seconds: time before its end in which a job writes checkpoints and requeues itself.
        setup: shell lines at the start of a job.
        sbatch: further options, e.g. {mail-type: END}.
        snapshot: run from a copy of the code made at submission.
    """

    workers: int | None
    wait: bool
    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    time: int
    nodes: int
    cpus: int | None
    gpus: int | None
    memory: str | None
    parallelism: int
    runs_per_job: int
    side_by_side: int
    signal_seconds: int
    setup: tuple[str, ...]
    sbatch: Mapping[str, Any] | None
    snapshot: bool


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """Add to a run's configuration the settings of `infra` that were introduced after it was frozen."""
    return {**config, "infra": {**EARLIER, **config["infra"]}}


def read(config: Mapping[str, Any]) -> Infra:
    """Read and check `infra`.

    Raises:
        UserError: an unknown or missing setting, or an invalid value.
    """
    infra = read_settings(Infra, "infra", config)
    launcher = read_launcher(infra.launcher)
    if infra.tracking not in TRACKING:
        raise unknown("infra.tracking", infra.tracking, TRACKING)
    if infra.kernels not in KERNELS:
        raise unknown("infra.kernels", infra.kernels, KERNELS)
    if infra.memory_format not in MEMORY_FORMATS:
        raise unknown("infra.memory_format", infra.memory_format, MEMORY_FORMATS)
    if infra.workers != "auto" and not infra.workers.isdecimal():
        raise UserError(
            f"infra.workers={infra.workers} is neither auto nor a whole number",
            "use auto, or the number of processes that read image files; 0: the run's own process",
        )
    if not infra.checkpoint_minutes > 0:
        raise UserError(
            f"infra.checkpoint_minutes={infra.checkpoint_minutes}",
            "use a positive number of minutes; every epoch ends with a checkpoint anyway",
        )
    for name, value, least in (
        ("devices", infra.devices, 1),
        ("threads", infra.threads, 1),
    ):
        _at_least(name, value, least)
    if infra.devices > 1 and ":" in infra.device:
        raise UserError(
            f"infra.device={infra.device} is one card, infra.devices={infra.devices} are requested",
            "use infra.device=cuda, and CUDA_VISIBLE_DEVICES to choose cards",
        )
    if launcher.gpus and launcher.gpus < infra.devices:
        raise UserError(
            f"infra.devices={infra.devices} of jobs that have infra.launcher.gpus={launcher.gpus}",
            f"use infra.launcher.gpus={infra.devices}: a card for each process",
        )
    return infra


def read_launcher(config: Mapping[str, Any]) -> Launcher:
    """Read and check `infra.launcher`.

    Raises:
        UserError: an unknown or missing setting, or an invalid value.
    """
    launcher = read_settings(Launcher, "infra.launcher", config)
    for name in ("workers", "time", "nodes", "cpus", "parallelism", "runs_per_job", "side_by_side"):
        _at_least(f"launcher.{name}", getattr(launcher, name), 1)
    for name in ("gpus", "signal_seconds"):
        _at_least(f"launcher.{name}", getattr(launcher, name), 0)
    if launcher.memory is not None and not re.fullmatch(r"\d+[KMGT]?", launcher.memory):
        raise UserError(f"infra.launcher.memory={launcher.memory}", "write it as SLURM does: 16G, 900M")
    if launcher.nodes > 1 and launcher.side_by_side > 1:
        raise UserError(
            f"infra.launcher.side_by_side={launcher.side_by_side} on {launcher.nodes} machines",
            "runs that take several machines are computed one after the other: side_by_side=1",
        )
    return launcher


def _at_least(name: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise UserError(f"infra.{name}={value}", f"use {least} or more, or leave it at its default")
