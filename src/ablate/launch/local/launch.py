"""Run a submission in worker processes, each with its share of the cores or cards."""

from __future__ import annotations

from rich.console import Console

from ablate.execution.outcome import Outcome
from ablate.launch.alone import check_alone
from ablate.launch.local.display import show_pool
from ablate.launch.local.pool import WorkerPool
from ablate.launch.submission import Submission
from ablate.training.cores import available


def launch(submission: Submission, console: Console) -> dict[str, Outcome]:
    """Run what is ready, several runs at a time."""
    ready, infra = submission.ready, submission.infra
    if not ready:
        return {}
    check_alone("local")
    workers = infra["launcher"]["workers"] or default_workers(len(ready), infra["device"], infra["devices"])
    pool = WorkerPool(submission.runs_dir, ready, min(workers, len(ready)), infra)
    return show_pool(pool, submission, console)


def default_workers(runs: int, device: str, devices: int = 1) -> int:
    """Number of workers: one per run and core, at most 8; one per GPU where those are used.

    Fewer where a run takes several `devices`.
    """
    if device != "cpu":
        import torch

        if torch.cuda.is_available():
            return max(1, min(runs, torch.cuda.device_count() // devices))
    return max(1, min(runs, available() // devices, 8))
