"""Contract of a task: what the training loop asks of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ablate.data import Loader, Splits
from ablate.store.metrics import TaskMetrics

if TYPE_CHECKING:
    from ablate.results.examples import Answer
    from ablate.results.predictions import Predictions

T = TypeVar("T")


class Processes(Protocol):
    """The processes that compute a run together. Every one of them makes the same calls in the same order."""

    def all_reduce_sum(self, *values: float) -> Sequence[float]:
        """Sum each value over the processes."""
        ...

    def gather(self, values: list[T]) -> list[T]:
        """Return the values of all processes, those of the first one first."""
        ...


class Alone:
    """One process."""

    def all_reduce_sum(self, *values: float) -> Sequence[float]:
        """Return the values."""
        return values

    def gather(self, values: list[T]) -> list[T]:
        """Return the values."""
        return values


ALONE = Alone()


class BatchCount(nn.Module):
    """Number of what a loss is a mean over, in the whole batch.

    Training replaces it where several processes share the batch; each one's loss is then divided by the mean
    number of a process, so that the mean of the losses is the loss of the batch.
    """

    def forward(self, count: int, device: torch.device) -> Tensor:
        """Return the number, 1 or more, as a scalar on the device."""
        return torch.tensor(float(max(count, 1)), device=device)


class RegionNorm(nn.BatchNorm2d):
    """Batch norm over regions, of which processes that share a batch may have unequal numbers."""


class Mixing(Protocol):
    """Settings of a recipe that change the targets of a batch, see `training.recipe.Recipe`."""

    @property
    def label_smoothing(self) -> float:
        """Share of a label that goes to all classes."""
        ...

    @property
    def mixup(self) -> float:
        """α of mixup's Beta distribution, 0 for none."""
        ...

    @property
    def cutmix(self) -> float:
        """α of cutmix's Beta distribution, 0 for none."""
        ...


class Shown(NamedTuple):
    """A test image with its labels and predictions, to be drawn."""

    image: Tensor  # (C, H, W), normalised, at the size of the answers
    labels: Answer
    predictions: Answer


def displayable(image: Tensor) -> NDArray[np.float32]:
    """Scale an image (C, H, W) to 0 … 1 for display: (H, W, 3), or (H, W) if it has one channel."""
    low, high = image.min(), image.max()
    scaled = ((image - low) / (high - low).clamp(min=1e-6)).permute(1, 2, 0).float().cpu()
    return (scaled[..., 0] if scaled.shape[-1] == 1 else scaled[..., :3]).numpy()


def pixels(image: Tensor) -> NDArray[np.uint8]:
    """Return an image (C, H, W) as it is displayed, in whole numbers from 0 to 255."""
    return np.round(255 * displayable(image)).astype(np.uint8)


def first(batch: Any, count: int) -> Any:
    """Return a batch with its first images only."""
    parts = [part[:count] for part in batch]
    return type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)


def at_size(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize an image (C, H, W) for display."""
    return image if image.shape[1:] == size else F.interpolate(image[None], size, mode="bilinear")[0]


class Figures(NamedTuple):
    """Figures of a split."""

    metrics: dict[str, float]  # of the task, by name
    by_class: dict[str, list[float]]  # values of each class of some of them; NaN where a class does not occur
    # of each image in the order of the split, where a task gives it one class; every process calls it
    predictions: Callable[[], Predictions] | None = None


def named_classes(
    by_class: Mapping[str, Sequence[float]], names: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """Return figures by metric and name of the class, or its number if it has none; NaN becomes None."""
    return {
        metric: {
            (names[label] if label < len(names) else str(label)): None if math.isnan(value) else value
            for label, value in enumerate(values)
        }
        for metric, values in by_class.items()
    }


class Objective(Protocol):
    """Training loss of a task, for one run."""

    def __call__(self, network: nn.Module, batch: Any, layout: torch.memory_format) -> Tensor:
        """Return the mean loss of a batch, a scalar. Called under the recipe's autocast.

        Args:
            network: the forward pass; compiled, or shared among processes.
            batch: as the loader of the training split yields it.
            layout: memory format that images are given in.
        """
        ...


class Task(Protocol):
    """A task. It has no state of a run: one object serves all runs."""

    annotation: str  # what images must be labelled with

    @property
    def metrics(self) -> TaskMetrics:
        """Names, units and directions of its metrics."""
        ...

    def network_arguments(self, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return the host of a run's configuration and its arguments, without any data on disk."""
        ...

    def check(self, config: Mapping[str, Any]) -> None:
        """Refuse a host, operator and data set that this task cannot be trained with.

        Raises:
            UserError: says what does not fit.
        """
        ...

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Build the network with its head. All that is outside the operator's slots is drawn first."""
        ...

    def begin(self, model: nn.Module, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """Give a network that has no checkpoint of its run the weights that it begins with.

        Returns:
            What was loaded, for environment.json; None if all weights stay as they were drawn.
        """
        ...

    def objective(self, config: Mapping[str, Any], recipe: Mixing, splits: Splits) -> Objective:
        """Return the training loss of a run: its configuration, the recipe read from it, and its data."""
        ...

    def evaluate(
        self,
        model: nn.Module,
        loader: Loader,
        precision: torch.autocast,
        on_batch: Callable[[], None] | None = None,
        processes: Processes = ALONE,
    ) -> Figures:
        """Return `metrics.all` over a whole split, each image counted once.

        Args:
            model: the network.
            loader: batches of the split; of several processes, this one's share.
            precision: of the forward pass.
            on_batch: called after each batch; may end the run.
            processes: those that share the split.
        """
        ...

    def answers(self, model: nn.Module, batch: Any) -> list[Shown]:
        """Return test images of a batch with their labels and predictions; none where a word says it all."""
        ...
