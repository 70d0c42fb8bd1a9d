"""Semantic segmentation: one class per pixel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate import data, hosts
from ablate.configuration import read_settings
from ablate.data import MAP, OUTSIDE, Loader, Splits
from ablate.data.options import require_between, require_whole
from ablate.errors import UserError
from ablate.hosts.features import Features
from ablate.store.metrics import TASKS
from ablate.tasks.arguments import (
    check_features,
    features,
    network_arguments,
    refuse_mixing,
    require_annotation,
)
from ablate.tasks.contract import ALONE, Mixing, Objective, Processes, Shown
from ablate.tasks.upernet import FCN, UPerNet, enlarged


@dataclass(frozen=True)
class Settings:
    """Settings of `conf/task/segmentation.yaml`."""

    name: str
    channels: int
    pools: tuple[int, ...]
    dropout: float
    auxiliary: float
    auxiliary_channels: int
    init: str | None = None
    weights: str | None = None

    def __post_init__(self) -> None:
        require_whole("task.channels", self.channels, at_least=1)
        require_whole("task.auxiliary_channels", self.auxiliary_channels, at_least=1)
        for side in self.pools:
            require_whole("task.pools", side, at_least=1)
        require_between("task.dropout", self.dropout, 0, 1)
        require_between("task.auxiliary", self.auxiliary, 0, 10)


class Segmenter(nn.Module):
    """A host's feature maps and the heads on them."""

    def __init__(self, features: Features, head: UPerNet, auxiliary: FCN | None) -> None:
        super().__init__()
        self.features, self.head, self.auxiliary = features, head, auxiliary
        self.classes = head.classifier.out_channels

    def forward(self, images: Tensor) -> Any:
        """(B, C, H, W) → logits (B, classes, H, W); in training with the auxiliary head's, a list of both."""
        maps, size = self.features(images), images.shape[-2:]
        logits = enlarged(self.head(maps), size)
        if not self.training or self.auxiliary is None:
            return logits
        return [logits, enlarged(self.auxiliary(maps[max(len(maps) - 2, 0)]), size)]


class Segmentation:
    """Cross-entropy over pixels; mean intersection over union of a whole split, and pixel accuracy."""

    metrics = TASKS["segmentation"]
    annotation = MAP

    def network_arguments(self, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return a host's name and its arguments; the host has no classifier."""
        name, arguments = network_arguments(config)
        return name, {**arguments, "num_classes": 0}

    def check(self, config: Mapping[str, Any]) -> None:
        """Refuse data without maps, mixed images, and hosts and operators that do not fit.

        Raises:
            UserError: says what does not fit.
        """
        settings = _settings(config)
        require_annotation(config, self.annotation, "data=fashion_scenes")
        recipe = config["recipe"]
        if recipe["batch_size"] == recipe["accumulate"] and 1 in settings.pools:
            raise UserError(
                "one image per forward pass, pooled to one position, leaves batch norm a single value",
                "use a larger recipe.batch_size, a smaller recipe.accumulate, or task.pools without 1",
            )
        refuse_mixing(recipe, "pixels")
        name, arguments = self.network_arguments(config)
        check_features(config, name, arguments)

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
        return Segmenter(features(config, name, arguments), head, auxiliary)

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
    ) -> dict[str, float]:
        """`loss` (nats), `miou` and `pixel_accuracy` (percent) over the whole split; see `Task`.

        Intersections and unions are counted over the split and not averaged over images. Classes that are
        neither in the maps nor predicted do not count.
        """
        model.eval()
        classes = model.classes
        assert isinstance(classes, int)
        losses: list[Tensor] = []
        images, counts = 0, torch.zeros(classes, classes, dtype=torch.int64)
        for inputs, maps in loader.epoch(0):
            with precision:
                logits = model(inputs).float()
            losses.append(cross_entropy(logits, maps).double() * len(maps))
            counts = counts.to(maps.device) + confusion(logits.argmax(1), maps, classes)
            images += len(maps)
            if on_batch is not None:
                on_batch()
        sums = [float(sum(losses)), float(images), *map(float, counts.flatten().tolist())]
        total, number, *pairs = processes.all_reduce_sum(*sums)
        table = torch.tensor(pairs, dtype=torch.float64).view(classes, classes)
        return {"loss": total / number, "miou": mean_iou(table), "pixel_accuracy": pixel_accuracy(table)}

    def answers(self, model: nn.Module, batch: Any) -> list[Shown]:
        """Return each image with its map, and with the map of the surest classes; see `Task`."""
        from ablate.results.figures import Answer

        images, maps = batch
        found = model.eval()(images).argmax(1)
        return [
            Shown(image, Answer(map=truth.numpy()), Answer(map=mine.numpy()))
            for image, truth, mine in zip(images, maps.cpu(), found.cpu(), strict=True)
        ]


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
    hits = table.diagonal()
    union = table.sum(0) + table.sum(1) - hits
    shares = hits[union > 0] / union[union > 0]
    return round(100 * float(shares.mean()), 5) if len(shares) else 0.0


def pixel_accuracy(table: Tensor) -> float:
    """Return the share of pixels whose class is right, in percent."""
    return round(100 * float(table.diagonal().sum() / table.sum().clamp(min=1)), 5)


def _settings(config: Mapping[str, Any]) -> Settings:
    return read_settings(Settings, "task", config["task"])
