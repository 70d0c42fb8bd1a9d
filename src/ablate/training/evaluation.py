"""Loss and accuracy of a model on a split, each image counted once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ablate.data import Loader


@torch.no_grad()
def evaluate(model: nn.Module, loader: Loader, precision: torch.autocast) -> dict[str, float]:
    """`loss` (cross-entropy, nats), `top1` and `top5` (percent) over the whole split."""
    model.eval()
    loss, top1, top5, images = 0.0, 0.0, 0.0, 0
    for inputs, labels in loader.epoch(0):
        with precision:
            logits = model(inputs).float()
        ranked = logits.topk(min(5, logits.shape[-1]), dim=-1).indices == labels[:, None]
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        top1 += ranked[:, 0].sum().item()
        top5 += ranked.any(-1).sum().item()
        images += len(labels)
    return {"loss": loss / images, "top1": 100 * top1 / images, "top5": 100 * top5 / images}
