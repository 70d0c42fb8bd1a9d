"""Loss and accuracy of a model on a split, each image counted once."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from timm.utils import AverageMeter, accuracy
from torch import Tensor, nn

from ablate.data import Loader
from ablate.training.distributed import SOLO, Group


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: Loader,
    precision: torch.autocast,
    on_batch: Callable[[], None] | None = None,
    group: Group = SOLO,
) -> dict[str, float]:
    """`loss` (cross-entropy, nats), `top1` and `top5` (percent) over the whole split.

    `on_batch` is called after each batch, and may end the run. Several processes take turns at the
    batches; each learns the figures of all. The figures of the batches stay on the device until the split
    is done, so that no batch waits for the one before it.
    """
    model.eval()
    figures: list[Tensor] = []  # of each batch: mean loss, top-1 and top-5, (3,) float32
    counts: list[int] = []
    for inputs, labels in loader.epoch(0):
        with precision:
            logits = model(inputs).float()
        first, fifth = accuracy(logits, labels, topk=(1, min(5, logits.shape[-1])))
        figures.append(torch.stack([F.cross_entropy(logits, labels), first, fifth]))
        counts.append(len(labels))
        if on_batch is not None:
            on_batch()
    loss, top1, top5 = AverageMeter(), AverageMeter(), AverageMeter()
    for values, count in zip(torch.stack(figures).tolist() if figures else [], counts, strict=True):
        for meter, value in zip((loss, top1, top5), values, strict=True):
            meter.update(value, count)
    *sums, images = group.all_reduce_sum(loss.sum, top1.sum, top5.sum, loss.count)
    mean_loss, first, fifth = (value / images for value in sums)
    # timm counts in float32; five decimals are finer than one image in a million
    return {"loss": mean_loss, "top1": round(first, 5), "top5": round(fifth, 5)}
