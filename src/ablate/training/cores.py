"""Divide the cores of a machine among the processes that train on it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ablate.training.distributed import Group

SIDE_BY_SIDE = "ABLATE_SIDE_BY_SIDE"  # environment variable: number of workers in a pool
MOST_WORKERS = 16  # of one process: each holds several decoded batches in memory


def allowed() -> int:
    """Number of cores that the system lets this process use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available() -> int:
    """Number of usable cores; within a SLURM job, those allocated to it."""
    return min(allowed(), int(os.environ.get("SLURM_CPUS_ON_NODE", allowed())))


def threads(setting: int | None, group: Group) -> int:
    """Threads of PyTorch: `infra.threads`, else its own choice within this process's share of the cores."""
    import torch

    return setting or min(torch.get_num_threads(), max(1, allowed() // group.local_world_size))


def loader_workers(setting: int | str, group: Group) -> int:
    """Number of processes that read image files: `infra.workers`, else this process's share of the cores.

    One core of the share is left to the process itself, which launches the kernels.
    """
    if setting != "auto":
        return int(setting)
    share = available() // (group.local_world_size * int(os.environ.get(SIDE_BY_SIDE, 1)))
    return max(1, min(MOST_WORKERS, share - 1))
