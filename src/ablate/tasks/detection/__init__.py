"""Detection and instance segmentation: boxes, classes and masks of objects.

Built of torchvision's parts of Mask R-CNN; where mmdetection, which ELSA's and LESA's authors used, differs
in a way that changes results, this follows mmdetection: `matching`, `pyramid.Regions`, `proposals`, `heads`.
Start in `detector`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isnan
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ablate import data, hosts
from ablate.configuration import read_settings
from ablate.data import INSTANCES, InstanceBatch, Loader, Splits, TruthBatch
from ablate.data.encoding import decoded
from ablate.errors import UserError
from ablate.hosts.features import Features
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
from ablate.tasks.detection import average_precision
from ablate.tasks.detection.average_precision import KINDS, Judged, judged
from ablate.tasks.detection.detector import Detections, Detector, Heads
from ablate.tasks.detection.settings import Settings

SHOWN = 0.5  # score of a detection from which on it is drawn


class Detection:
    """Losses of proposals and of heads on regions; average precision of boxes and masks."""

    annotation = INSTANCES

    @property
    def metrics(self) -> TaskMetrics:
        """Metrics of the task, those of plug-ins included."""
        return of_task("detection")

    def network_arguments(self, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return a host's name and its arguments; the host has no classifier."""
        return dense_arguments(config, any_size=_any_size(config))

    def check(self, config: Mapping[str, Any]) -> None:
        """Refuse data without objects, mixed images, and hosts and operators that do not fit.

        Raises:
            UserError: says what does not fit.
        """
        settings = _settings(config)
        require_annotation(config, self.annotation, "data=fashion_scenes")
        refuse_mixing(config["recipe"], "objects")
        metric = str((config.get("study") or {}).get("metric") or "")
        if not settings.masks and "mask_" in metric:
            raise UserError(f"study.metric={metric} without masks", "use task.masks=true or another metric")
        name, arguments = self.network_arguments(config)
        check_features(config, name, arguments, any_size=_any_size(config))

    def build(self, config: Mapping[str, Any]) -> Detector:
        """Build the heads, which are drawn first, and then the host with its operator."""
        settings = _settings(config)
        name, arguments = self.network_arguments(config)
        levels = hosts.feature_levels(name, **arguments)
        info = data.info(config["data"])
        heads = Heads(levels, info.things, settings)
        return Detector(features(config, name, arguments), heads, info.areas)

    def begin(self, model: nn.Module, config: Mapping[str, Any]) -> None:
        """Put the weights of `task.init` into the host; see `Task`."""
        assert isinstance(model.features, Features)
        initial.load(model.features, config, *self.network_arguments(config))

    def objective(self, config: Mapping[str, Any], recipe: Mixing, splits: Splits) -> Objective:
        """Return the training loss: the sum of all losses of the detector."""

        def loss(network: nn.Module, batch: InstanceBatch, layout: torch.memory_format) -> Tensor:
            images = batch.images.contiguous(memory_format=layout)
            losses = network(images, batch.sizes, batch.instances, batch.seeds)
            return torch.stack(list(losses.values())).sum()

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
        """Average precision (percent) of boxes and masks over the whole split; see `Task`.

        Images are given to the network one by one: what fills one up to the size of its neighbours in a batch
        changes its figures.
        """
        assert isinstance(model, Detector)
        found = judgements(model, loader, precision, on_batch, processes)
        return figures(found, model.classes, model.areas)

    def answers(self, model: nn.Module, batch: TruthBatch) -> list[Shown]:
        """Return each image with its objects, and with detections of a score of 0.5 or more; see `Task`."""
        from ablate.results.examples import Answer

        found = []
        for image, size, truth in zip(*batch, strict=True):
            (one,) = model.eval()(image[None], [size])
            sure = one.scores >= SHOWN
            masks = None if one.masks is None else one.masks[sure]
            chosen = Detections(one.boxes[sure], one.scores[sure], one.classes[sure], masks)
            mine = judged(truth, chosen, size)
            pair = [
                Answer(boxes=_corners(boxes), classes=classes, masks=decoded(masks, truth.size))
                for boxes, classes, masks in (
                    (truth.boxes, truth.classes, truth.masks),
                    (mine.boxes, mine.classes, mine.masks),
                )
            ]
            found.append(Shown(at_size(image[:, : size[0], : size[1]], truth.size), *pair))
        return found


def _corners(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)


def judgements(
    model: nn.Module,
    loader: Loader,
    precision: torch.autocast,
    on_batch: Callable[[], None] | None,
    processes: Processes,
) -> list[Judged]:
    """Return the objects and detections of every image of a split, those of all processes."""
    model.eval()
    found: list[Judged] = []
    for images, sizes, truths in loader.epoch(0):
        for image, size, truth in zip(images, sizes, truths, strict=True):
            with precision:
                (one,) = model(image[None], [size])
            found.append(judged(truth, one, size))
        if on_batch is not None:
            on_batch()
    return processes.gather(found)


def figures(found: list[Judged], classes: int, areas: tuple[int, int]) -> Figures:
    """Return the metrics of a split, and the AP of each class; none of a size that no object has."""
    kinds = [kind for kind in KINDS if kind == "box" or all(one.masks is not None for one in found)]
    metrics: dict[str, float] = {}
    by_class: dict[str, list[float]] = {}
    for kind in kinds:
        values = average_precision.of(found, classes, kind, areas)
        metrics |= {
            f"{kind}_ap": values.overall,
            f"{kind}_ap50": values.at50,
            f"{kind}_ap75": values.at75,
            **{f"{kind}_ap_{size}": value for size, value in values.by_range.items() if not isnan(value)},
        }
        by_class[f"{kind}_ap"] = values.by_class
    return Figures(metrics | own.figures("detection", found), by_class)


def _any_size(config: Mapping[str, Any]) -> bool:
    return not data.info(config["data"]).fixed_size


def _settings(config: Mapping[str, Any]) -> Settings:
    return read_settings(Settings, "task", config["task"])
