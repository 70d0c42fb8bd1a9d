"""Classification: one class per image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.data import Mixup
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.utils import AverageMeter, accuracy
from torch import Tensor, nn

from ablate import hosts
from ablate.data import CLASS, Loader, Splits
from ablate.errors import UserError, unknown
from ablate.results.predictions import Predictions
from ablate.store.metrics import TaskMetrics, of_task
from ablate.tasks import own, pretrained
from ablate.tasks.arguments import FROZEN, network_arguments, require_annotation
from ablate.tasks.contract import ALONE, Figures, Mixing, Objective, Processes, Shown


class Classification:
    """Cross-entropy, with what the recipe mixes; top-1 and top-5 accuracy. The head is the host's own."""

    annotation = CLASS

    @property
    def metrics(self) -> TaskMetrics:
        """Metrics of the task, those of plug-ins included."""
        return of_task("classification")

    def network_arguments(self, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return a host's name and its arguments."""
        return network_arguments(config)

    def check(self, config: Mapping[str, Any]) -> None:
        """Refuse data without classes, and an operator that the host cannot take.

        Raises:
            UserError: says what does not fit.
        """
        if extra := [key for key in config.get("task") or {} if key != "name"]:
            raise unknown("setting of task=classification:", str(extra[0]), ["name"])
        for key in FROZEN:
            if value := config["recipe"].get(key):
                raise UserError(
                    f"recipe.{key}={value} is for hosts that begin with trained weights",
                    "use task=segmentation or task=detection with task.init, or another recipe",
                )
        require_annotation(config, self.annotation, "task=segmentation, or another data set")
        name, arguments = self.network_arguments(config)
        hosts.check(name, config["op"], **arguments)
        pretrained.check(config, name, arguments)

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Build the host with its classifier."""
        name, arguments = self.network_arguments(config)
        return hosts.create(name, config["op"], **arguments)

    def begin(self, model: nn.Module, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """Put the weights of `host.pretrained` into the network, if it names any; see `Task`."""
        name, arguments = self.network_arguments(config)
        return pretrained.begin(model, config, name, arguments)

    def objective(self, config: Mapping[str, Any], recipe: Mixing, splits: Splits) -> Objective:
        """Return the training loss, of mixed images if the recipe mixes any."""
        if recipe.mixup or recipe.cutmix:
            mix = Mixup(
                mixup_alpha=recipe.mixup,
                cutmix_alpha=recipe.cutmix,
                label_smoothing=recipe.label_smoothing,
                num_classes=splits.num_classes,
            )
            return CrossEntropy(SoftTargetCrossEntropy(), mix)
        if recipe.label_smoothing:
            return CrossEntropy(LabelSmoothingCrossEntropy(recipe.label_smoothing))
        return CrossEntropy(nn.CrossEntropyLoss())

    @torch.no_grad()
    def evaluate(
        self,
        model: nn.Module,
        loader: Loader,
        precision: torch.autocast,
        on_batch: Callable[[], None] | None = None,
        processes: Processes = ALONE,
    ) -> Figures:
        """`loss` (cross-entropy, nats), `top1` and `top5` (percent) over the whole split; see `Task`.

        The figures of the batches stay on the device until the split is done, so that no batch waits for
        the one before it.
        """
        model.eval()
        figures: list[Tensor] = []  # of each batch: mean loss, top-1 and top-5, (3,) float32
        counts: list[int] = []
        of_images: list[list[Tensor]] = []  # of each batch: the parts of `Predictions`
        answers = own.Answers("classification")
        for inputs, labels in loader.epoch(0):
            with precision:
                logits = model(inputs).float()
            first, fifth = accuracy(logits, labels, topk=(1, min(5, logits.shape[-1])))
            figures.append(torch.stack([F.cross_entropy(logits, labels), first, fifth]))
            counts.append(len(labels))
            of_images.append(_answers(logits, labels))
            answers.add(logits, labels)
            if on_batch is not None:
                on_batch()
        loss, top1, top5 = AverageMeter(), AverageMeter(), AverageMeter()
        for values, count in zip(torch.stack(figures).tolist() if figures else [], counts, strict=True):
            for meter, value in zip((loss, top1, top5), values, strict=True):
                meter.update(value, count)
        sums = [meter.sum for meter in (loss, top1, top5)] + [loss.count]
        *totals, images = processes.all_reduce_sum(*sums)
        mean_loss, first, fifth = (total / images for total in totals)
        # timm counts in float32; five decimals are finer than one image in a million
        metrics = {"loss": mean_loss, "top1": round(first, 5), "top5": round(fifth, 5)}
        metrics |= answers.figures(processes)
        return Figures(metrics, {}, partial(_gathered, of_images, processes))

    def answers(self, model: nn.Module, batch: Any) -> list[Shown]:
        """Return nothing: a class of an image is no picture."""
        return []


def _answers(logits: Tensor, labels: Tensor) -> list[Tensor]:
    """Label, prediction, probability of the label, and that of the prediction, of each image: (B,) each."""
    probabilities = logits.softmax(-1)
    confidence, predicted = probabilities.max(-1)
    return [labels, predicted, probabilities.gather(-1, labels[:, None])[:, 0], confidence]


def _gathered(answers: list[list[Tensor]], processes: Processes) -> Predictions:
    """Predictions of all processes in the order of the split, whose batches they take in turns."""
    shares = processes.gather([[tuple(part.cpu().numpy() for part in batch) for batch in answers]])
    batches = [share[turn] for turn in range(max(map(len, shares))) for share in shares if turn < len(share)]
    return Predictions(*map(np.concatenate, zip(*batches, strict=True)))


class CrossEntropy:
    """Cross-entropy of images and labels, of mixed ones if there is a `mix`."""

    def __init__(self, criterion: nn.Module, mix: Mixup | None = None) -> None:
        self.criterion, self.mix = criterion, mix

    def __call__(self, network: nn.Module, batch: Any, layout: torch.memory_format) -> Tensor:
        """Return the mean loss of a batch of images (B, C, H, W) and labels (B,)."""
        images, target = batch
        if self.mix is not None:
            images, target = self.mix(images, target)
        loss: Tensor = self.criterion(network(images.contiguous(memory_format=layout)), target)
        return loss
