"""Tasks: what a network is trained for. A task owns its head, its loss on a batch, and its evaluation.

`ablate.store.metrics` has the names, units and directions of each task's metrics, without PyTorch. Start in
`contract`. Imports of ablate only `hosts`, `data`, `store` and `errors`; used by `training`, `compose.check`,
`studies.look` and `bench`.
"""

from collections.abc import Mapping
from typing import Any

from ablate.store import metrics
from ablate.tasks.classification import Classification
from ablate.tasks.contract import Objective, Task
from ablate.tasks.detection import Detection
from ablate.tasks.own import register_metric
from ablate.tasks.segmentation import Segmentation

__all__ = ["Objective", "Task", "get", "of_run", "register_metric"]

_TASKS: dict[str, Task] = {
    "classification": Classification(),
    "segmentation": Segmentation(),
    "detection": Detection(),
}


def get(name: str) -> Task:
    """Return the task of a name.

    Raises:
        UserError: no such task.
    """
    metrics.of_task(name)  # refuses an unknown name
    return _TASKS[name]


def of_run(config: Mapping[str, Any]) -> Task:
    """Return the task of a run's configuration."""
    return get(metrics.task_of(config))
