"""Metrics of plug-ins: computed beside those of a task."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from ablate.errors import UserError, place_of
from ablate.store import metrics
from ablate.store.metrics import Metric, OwnMetric
from ablate.tasks.contract import Processes

Compute = TypeVar("Compute", bound=Callable[..., float])
TASKS = ("classification", "segmentation", "detection")  # that a metric can be added to


def register_metric(
    name: str,
    *,
    task: str = "classification",
    words: str = "",
    unit: str = "",
    higher: bool = True,
    digits: int = 2,
    version: str = "",
) -> Callable[[Compute], Compute]:
    """Register a metric: a decorator of the function that computes it over a whole split.

    The function is called with (logits, labels) of all images of a split for classification, (N, classes)
    float32 and (N,) int64 on the CPU, in no particular order; with the confusion matrix for segmentation,
    (classes, classes) float64, true classes in rows; and for detection with a list of
    `tasks.detection.average_precision.Judged`, the objects and detections of each image. It returns a finite
    number. Its figure is `validation_<name>` after each epoch and `test_<name>` at the end, and a study can
    compare it: `study.metric=test_<name>`.

    Args:
        name: in files.
        task: that has the metric.
        words: in text; the name if empty.
        unit: `%`, in which differences are percentage points, or empty.
        higher: a higher value is better.
        digits: decimals in text.
        version: changed by hand where figures change though no text does.

    Raises:
        UserError: the name is taken or breaks the rule for names, or the task cannot have it.

    Example:
        >>> @register_metric("confidence", words="mean confidence", unit="%")
        ... def confidence(logits, labels):
        ...     return 100 * logits.softmax(1).amax(1).mean()
    """
    if task not in TASKS:
        raise UserError(
            f"metric {name!r} cannot be added to task={task!r}",
            f"tasks that can have more: {', '.join(TASKS)}",
        )

    def decorate(compute: Compute) -> Compute:
        described = Metric(name, words or name.replace("_", " "), unit, higher, digits)
        metrics.add(OwnMetric(described, task, compute), version)
        return compute

    return decorate


class Answers:
    """Logits and labels of a split, kept only where a metric needs them."""

    def __init__(self, task: str) -> None:
        self.task, self.kept = task, bool(metrics.own_of(task))
        self.parts: list[tuple[Tensor, Tensor]] = []

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Keep those of a batch: (B, classes) and (B,)."""
        if self.kept:
            self.parts.append((logits.cpu(), labels.cpu()))

    def figures(self, processes: Processes) -> dict[str, float]:
        """Return the metrics of plug-ins by name, over the images of all processes."""
        if not self.kept:
            return {}
        logits, labels = zip(*processes.gather(self.parts), strict=True)
        return figures(self.task, torch.cat(logits), torch.cat(labels))


def figures(task: str, *arguments: Any) -> dict[str, float]:
    """Return the metrics that plug-ins have added to a task, by name.

    Raises:
        UserError: a function fails, with its file and line, or returns what is not a finite number.
    """
    return {own.metric.name: _computed(own, arguments) for own in metrics.own_of(task)}


def _computed(own: OwnMetric, arguments: tuple[Any, ...]) -> float:
    try:
        value = float(own.compute(*arguments))
    except Exception as error:  # it is somebody's own function
        raise UserError(
            f"metric {own.metric.name!r} fails: {type(error).__name__}: {error}{place_of(error)}",
            "correct it",
        ) from error
    if not math.isfinite(value):
        raise UserError(f"metric {own.metric.name!r} is {value}", "return a finite number")
    return value


def modules(task: str) -> set[str]:
    """Return the names of the modules that a task's metrics of plug-ins are defined in."""
    return {own.compute.__module__ for own in metrics.own_of(task)}
