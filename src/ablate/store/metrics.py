"""Metrics that runs record: words, unit, direction, and those of each task.

Files name a metric with its split in front: `validation_top1` in metrics.jsonl, `test_top1` in result.json.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ablate.errors import UserError, unknown
from ablate.plugins import Registry
from ablate.store.identity import IMPLIED

SPLITS = ("train", "validation", "test")  # in front of the names of columns


@dataclass(frozen=True)
class Metric:
    """A metric as people read it.

    Attributes:
        name: in files.
        words: in text.
        unit: `%`, in which differences are percentage points, or empty.
        higher: a higher value is better.
        digits: decimals in text.
        quantity: in a sentence, with its article: 'an accuracy'; the words if empty.
    """

    name: str
    words: str
    unit: str = ""
    higher: bool = True
    digits: int = 2
    quantity: str = ""

    @property
    def some(self) -> str:
        """The quantity with its article: 'an accuracy'."""
        return self.quantity or f"a {self.words}"

    @property
    def plainly(self) -> str:
        """The quantity without its article: 'accuracy'."""
        return self.some.partition(" ")[2]

    def text(self, value: float) -> str:
        """Words, value and unit: 'top-1 93.40 %'."""
        return f"{self.words} {value:.{self.digits}f} {self.unit}".rstrip()

    def better(self, value: float, other: float) -> bool:
        """Return True if `value` is strictly better than `other`."""
        return value > other if self.higher else value < other


@dataclass(frozen=True)
class TaskMetrics:
    """Metrics of a task.

    Attributes:
        all: what an evaluation of a split returns, in order.
        selects: name of the metric that selects the checkpoint on validation images.
        compares: name of the metric that a report compares on test images, unless a study says otherwise.
    """

    all: tuple[Metric, ...]
    selects: str
    compares: str

    @property
    def validation_column(self) -> str:
        """Column of the metric that selects the checkpoint."""
        return f"validation_{self.selects}"

    @property
    def test_column(self) -> str:
        """Column of the metric that a report compares."""
        return f"test_{self.compares}"

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that a study may compare."""
        return (*(f"test_{metric.name}" for metric in self.all), *self.validation_columns, "throughput")

    @property
    def validation_columns(self) -> tuple[str, ...]:
        """Validation figures in result.json: the one that selects the checkpoint, and the loss if any."""
        return tuple(dict.fromkeys([self.validation_column, *["validation_loss"] * (LOSS in self.all)]))

    @property
    def selecting(self) -> Metric:
        """The metric that selects the checkpoint."""
        return self[self.selects]

    def __getitem__(self, name: str) -> Metric:
        return next(metric for metric in self.all if metric.name == name)

    def test(self, result: Mapping[str, Any]) -> str:
        """Describe a run's result in the metric that is compared: 'test top-1 93.40 %'."""
        return f"test {self[self.compares].text(result[self.test_column])}"


LOSS = Metric("loss", "loss", higher=False, digits=3)
TASKS = {
    "classification": TaskMetrics(
        (
            LOSS,
            Metric("top1", "top-1", "%", quantity="an accuracy"),
            Metric("top5", "top-5", "%", quantity="an accuracy"),
        ),
        selects="top1",
        compares="top1",
    ),
    "segmentation": TaskMetrics(
        (
            LOSS,
            Metric("miou", "mIoU", "%", quantity="an mIoU"),
            Metric("pixel_accuracy", "pixel accuracy", "%"),
        ),
        selects="miou",
        compares="miou",
    ),
    "detection": TaskMetrics(
        tuple(
            Metric(f"{kind}_{name}", f"{kind} {words}", "%")
            for kind in ("box", "mask")
            for name, words in (
                *(("ap", "AP"), ("ap50", "AP50"), ("ap75", "AP75")),
                *((f"ap_{size}", f"AP of {size} objects") for size in ("small", "medium", "large")),
            )
        ),
        selects="box_ap",
        compares="box_ap",
    ),
}
DEFAULT = str(IMPLIED["task"]["name"])
OTHER = (Metric("throughput", "throughput"),)


class OwnMetric(NamedTuple):
    """A metric of a plug-in: its description, its task, and the function that computes it."""

    metric: Metric
    task: str
    compute: Callable[..., float]


OWN: Registry[OwnMetric] = Registry("a metric")


def add(own: OwnMetric, version: str = "") -> None:
    """Add a metric to those of a task; `version` as in `Registry.add`.

    Raises:
        UserError: no such task; or the name is taken, or breaks the rule for names.
    """
    of_task(own.task)
    name = own.metric.name
    if any(metric.name == name for task in TASKS.values() for metric in task.all):
        raise UserError(f"metric {name!r} is there already", "give the new one another name")
    OWN.add(name, own, version)


def own_of(task: str) -> list[OwnMetric]:
    """Return the metrics that plug-ins have added to a task."""
    return [own for own in OWN.values() if own.task == task]


def of_task(name: str) -> TaskMetrics:
    """Return the metrics of a task, those of plug-ins that are loaded included.

    Raises:
        UserError: no such task.
    """
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    found = TASKS[name]
    own = own_of(name)
    return replace(found, all=(*found.all, *(one.metric for one in own))) if own else found


def _tasks() -> list[TaskMetrics]:
    return [of_task(name) for name in TASKS]


def task_of(config: Mapping[str, Any]) -> str:
    """Return the name of a run's task."""
    return str((config.get("task") or {}).get("name", DEFAULT))


def of_run(config: Mapping[str, Any]) -> TaskMetrics:
    """Return the metrics of a run's task."""
    return of_task(task_of(config))


def of_metric(column: str) -> TaskMetrics:
    """Return the metrics of the task that a study compares by a column; the default's if several have it."""
    tasks = [task for task in _tasks() if column in task.columns]
    return tasks[0] if len(tasks) == 1 else of_task(DEFAULT)


def of_columns(columns: Iterable[str]) -> TaskMetrics | None:
    """Return the metrics of the task whose figures these are; None if they hold no validation figure."""
    names = set(columns)
    return next((task for task in _tasks() if task.validation_column in names), None)


def find(column: str) -> Metric:
    """Return the metric of a column such as `test_top1`; of one that no task has, its own name in words.

    An unknown metric is taken to be better the higher it is, unless it is a loss.
    """
    prefix, _, name = column.partition("_")
    bare = name if prefix in SPLITS else column
    known = [metric for task in _tasks() for metric in task.all] + [*OTHER]
    found = next((metric for metric in known if metric.name == bare), None)
    return found or Metric(bare, bare.replace("_", " "), higher=not bare.endswith("loss"))


def columns() -> tuple[str, ...]:
    """Columns that a study may compare, of all tasks."""
    return tuple(dict.fromkeys(column for task in _tasks() for column in task.columns))
