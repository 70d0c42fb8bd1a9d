"""Semantic segmentation: one class per pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate import data, hosts
from ablate.configuration import read_settings
from ablate.data import MAP, OUTSIDE, Loader, MapBatch, Splits
from ablate.data.options import require_between, require_whole
from ablate.errors import UserError
from ablate.hosts.features import Features, Level
from ablate.store.metrics import TaskMetrics, of_task
from ablate.tasks import initial, own
from ablate.tasks.arguments import (
    check_features,
    dense_arguments,
    features,
    refuse_mixing,
    require_annotation,
)
from ablate.tasks.contract import ALONE, Figures, Mixing, Objective, Processes, Shown, at_size
from ablate.tasks.inference import Evaluation, scores
from ablate.tasks.upernet import FCN, UPerNet, enlarged

BAND = 2**18  # pixels of an image that is evaluated whose scores are compared with the map at once


@dataclass(frozen=True)
class Settings:
    """Settings of `conf/task/segmentation.yaml`."""

    name: str
    channels: int
    pools: tuple[int, ...]
    dropout: float
    auxiliary: float
    auxiliary_channels: int
    evaluation: Mapping[str, Any]
    init: str | None = None
    weights: str | None = None
    map_norms: bool = True

    def __post_init__(self) -> None:
        require_whole("task.channels", self.channels, at_least=1)
        require_whole("task.auxiliary_channels", self.auxiliary_channels, at_least=1)
        for side in self.pools:
            require_whole("task.pools", side, at_least=1)
        require_between("task.dropout", self.dropout, 0, 1)
        require_between("task.auxiliary", self.auxiliary, 0, 10)
        _ = self.passes

    @property
    def passes(self) -> Evaluation:
        """Forward passes of an image that is evaluated."""
        return read_settings(Evaluation, "task.evaluation", self.evaluation)


class Segmenter(nn.Module):
    """A host's feature maps and the heads on them."""

    def __init__(
        self,
        features: Features,
        head: UPerNet,
        auxiliary: FCN | None,
        evaluation: Evaluation,
        levels: list[Level],
    ) -> None:
        super().__init__()
        self.features, self.head, self.auxiliary = features, head, auxiliary
        self.classes = head.classifier.out_channels
        self.evaluation = evaluation
        self._finest, self._coarsest = levels[0].reduction, levels[-1].reduction

    def forward(self, images: Tensor) -> Any:
        """(B, C, H, W) → logits (B, classes, H, W); in training with the auxiliary head's, a list of both."""
        height, width = images.shape[-2:]
        filled = self._filled(height), self._filled(width)
        if filled != (height, width):
            images = F.pad(images, (0, filled[1] - width, 0, filled[0] - height))
        maps = self.features(images)
        logits = enlarged(self.head(maps), filled)[..., :height, :width]
        if not self.training or self.auxiliary is None:
            return logits
        return [logits, enlarged(self.auxiliary(maps[max(len(maps) - 2, 0)]), filled)[..., :height, :width]]

    def _filled(self, side: int) -> int:
        """Return the side filled up to whole positions of the finest map, and one of the coarsest."""
        return max(-(-side // self._finest) * self._finest, self._coarsest)


class Segmentation:
    """Cross-entropy over pixels; mean intersection over union of a whole split, and pixel accuracy."""

    annotation = MAP

    @property
    def metrics(self) -> TaskMetrics:
        """Metrics of the task, those of plug-ins included."""
        return of_task("segmentation")

    def network_arguments(self, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return a host's name and its arguments; the host has no classifier.

        Where images of other sizes than those of training are evaluated, it is one that accepts them.
        """
        return dense_arguments(config, any_size=_any_size(config))

    def check(self, config: Mapping[str, Any]) -> None:
        """Refuse data without maps, mixed images, and hosts and operators that do not fit.

        Raises:
            UserError: says what does not fit.
        """
        settings = _settings(config)
        require_annotation(config, self.annotation, "data=fashion_scenes, data=map_folder or data=ade20k")
        recipe = config["recipe"]
        if recipe["batch_size"] == recipe["accumulate"] and 1 in settings.pools:
            raise UserError(
                "one image per forward pass, pooled to one position, leaves batch norm a single value",
                "use a larger recipe.batch_size, a smaller recipe.accumulate, or task.pools without 1",
            )
        refuse_mixing(recipe, "pixels")
        name, arguments = self.network_arguments(config)
        check_features(config, name, arguments, any_size=_any_size(config))

    def build(self, config: Mapping[str, Any]) -> Segmenter:
        """Build the heads, which are drawn first, and then the host with its operator."""
        settings = _settings(config)
        classes = data.info(config["data"]).num_classes
        name, arguments = self.network_arguments(config)
        levels = hosts.feature_levels(name, **arguments)
        widths = [level.channels for level in levels]
        head = UPerNet(widths, settings.channels, settings.pools, classes, settings.dropout)
        auxiliary = None
        if settings.auxiliary:
            width = widths[max(len(widths) - 2, 0)]
            auxiliary = FCN(width, settings.auxiliary_channels, classes, settings.dropout)
        return Segmenter(features(config, name, arguments), head, auxiliary, settings.passes, levels)

    def begin(self, model: nn.Module, config: Mapping[str, Any]) -> None:
        """Put the weights of `task.init` into the host; see `Task`."""
        assert isinstance(model.features, Features)
        initial.load(model.features, config, *self.network_arguments(config))

    def objective(self, config: Mapping[str, Any], recipe: Mixing, splits: Splits) -> Objective:
        """Return the training loss: both heads' cross-entropy, the auxiliary one's by its weight."""
        weight = _settings(config).auxiliary

        def loss(network: nn.Module, batch: Any, layout: torch.memory_format) -> Tensor:
            images, maps = batch
            logits = network(images.contiguous(memory_format=layout))
            if not isinstance(logits, list):
                return cross_entropy(logits, maps)
            return cross_entropy(logits[0], maps) + weight * cross_entropy(logits[1], maps)

        return loss

    @torch.no_grad()
    def evaluate(
        self,
        model: nn.Module,
        loader: Loader,
        precision: torch.autocast,
        on_batch: Callable[[], None] | None = None,
        processes: Processes = ALONE,
    ) -> Figures:
        """`loss` (nats), `miou` and `pixel_accuracy` (percent) over the whole split; see `Task`.

        Intersections and unions are counted over the split and not averaged over images. Classes that are
        neither in the maps nor predicted do not count.
        """
        model.eval()
        classes, evaluation = model.classes, model.evaluation
        assert isinstance(classes, int)
        assert isinstance(evaluation, Evaluation)
        losses: list[Tensor] = []
        images, counts = 0, torch.zeros(classes, classes, dtype=torch.int64)

        def network(inputs: Tensor) -> Tensor:
            with precision:
                logits: Tensor = model(inputs)
            return logits.float()

        for batch in loader.epoch(0):
            for inputs, maps, size in _groups(batch):
                logits = scores(network, inputs, size, (maps.shape[1], maps.shape[2]), evaluation)
                loss, found = compared(logits, maps, classes)
                losses.append(loss.double() * len(maps))
                counts = counts.to(maps.device) + found
                images += len(maps)
            if on_batch is not None:
                on_batch()
        sums = [float(sum(losses)), float(images), *map(float, counts.flatten().tolist())]
        total, number, *pairs = processes.all_reduce_sum(*sums)
        table = torch.tensor(pairs, dtype=torch.float64).view(classes, classes)
        metrics = {"loss": total / number, "miou": mean_iou(table), "pixel_accuracy": pixel_accuracy(table)}
        metrics |= own.figures("segmentation", table)
        return Figures(metrics, {"miou": [round(100 * share, 5) for share in iou(table).tolist()]})

    def answers(self, model: nn.Module, batch: Any) -> list[Shown]:
        """Return each image with its map, and with the map of the surest classes; see `Task`."""
        from ablate.results.examples import Answer

        model.eval()
        evaluation = model.evaluation
        assert isinstance(evaluation, Evaluation)
        shown = []
        for images, maps, size in _groups(batch):
            target = (maps.shape[1], maps.shape[2])
            found = scores(model, images, size, target, evaluation).argmax(1)
            for image, truth, mine in zip(images, maps.cpu(), found.cpu(), strict=True):
                answers = Answer(map=truth.numpy()), Answer(map=mine.numpy())
                shown.append(Shown(at_size(image, target), *answers))
        return shown


def cross_entropy(logits: Tensor, maps: Tensor) -> Tensor:
    """Return the sum over the pixels of a class, divided by the number of all pixels.

    The divisor is the same for every share of a batch, so that several processes compute what one does. It
    is also what mmsegmentation, which the authors used, divides by.

    Args:
        logits: (B, classes, H, W).
        maps: (B, H, W) int64, `OUTSIDE` where a pixel belongs to no class.
    """
    flat = logits.permute(0, 2, 3, 1).flatten(0, 2).float()
    return F.cross_entropy(flat, maps.flatten(), ignore_index=OUTSIDE, reduction="sum") / maps.numel()


def confusion(predicted: Tensor, maps: Tensor, classes: int) -> Tensor:
    """Count pixels by true (row) and predicted class (column): (classes, classes) int64."""
    pairs = torch.where(maps != OUTSIDE, maps * classes + predicted, classes**2).flatten()
    counts = torch.zeros(classes**2 + 1, dtype=torch.int64, device=maps.device)
    # no boolean index and no `bincount`, whose sizes the host would have to wait for
    counts.index_add_(0, pairs, torch.ones_like(pairs))
    return counts[:-1].view(classes, classes)


def mean_iou(table: Tensor) -> float:
    """Return the mean over classes of intersection by union, in percent; of those that occur at all."""
    shares = iou(table)
    shares = shares[~shares.isnan()]
    return round(100 * float(shares.mean()), 5) if len(shares) else 0.0


def iou(table: Tensor) -> Tensor:
    """Return intersection by union of each class, (classes,); NaN where neither map nor prediction has it."""
    hits = table.diagonal()
    return hits / (table.sum(0) + table.sum(1) - hits)


def pixel_accuracy(table: Tensor) -> float:
    """Return the share of pixels whose class is right, in percent."""
    return round(100 * float(table.diagonal().sum() / table.sum().clamp(min=1)), 5)


def compared(logits: Tensor, maps: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return the mean loss and the counts of `confusion`; a large image in bands, which needs less memory."""
    height, width = maps.shape[1:]
    rows = max(1, BAND // width) if len(maps) == 1 else height
    loss, counts = logits.new_zeros(()), torch.zeros(classes, classes, dtype=torch.int64, device=maps.device)
    for scored, labels in zip(logits.split(rows, 2), maps.split(rows, 1), strict=True):
        loss = loss + cross_entropy(scored, labels) * (labels.shape[1] / height)
        counts += confusion(scored.argmax(1), labels, classes)
    return loss, counts


def _groups(batch: Any) -> Iterator[tuple[Tensor, Tensor, tuple[int, int]]]:
    """Yield images of one size, their maps, and the size at which the network sees the images."""
    if isinstance(batch, MapBatch):
        for image, labels, size in zip(*batch, strict=True):
            yield image[None], labels[None], size
    else:
        images, maps = batch
        yield images, maps, (images.shape[2], images.shape[3])


def _any_size(config: Mapping[str, Any]) -> bool:
    """Return True if images are evaluated at other sizes than those of training."""
    return not data.info(config["data"]).fixed_size or not _settings(config).passes.one_pass


def _settings(config: Mapping[str, Any]) -> Settings:
    return read_settings(Settings, "task", config["task"])
