"""Match boxes to the objects that they train on by mmdetection's rules, and draw some of each image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_iou

BACKGROUND, NEITHER = -1, -2


class Rule(NamedTuple):
    """Rule that matches boxes to objects by intersection over union, as mmdetection's `MaxIoUAssigner`.

    torchvision's `Matcher` has no `least`, and leaves a box that is the best one of an object to the object
    that it overlaps most.

    Attributes:
        positive: a box that overlaps an object by this much trains on it.
        negative: a box that overlaps no object by this much trains as background.
        least: the boxes that overlap an object most train on it from this overlap on; None for never.
    """

    positive: float
    negative: float
    least: float | None


def matched(objects: Tensor, boxes: Tensor, rule: Rule) -> Tensor:
    """Return the number of the object that each box trains on, `BACKGROUND` or `NEITHER`: (n,) int64.

    Args:
        objects: boxes of the objects, (m, 4).
        boxes: (n, 4).
        rule: see `Rule`.
    """
    found = torch.full((len(boxes),), BACKGROUND, device=boxes.device)
    if not len(objects) or not len(boxes):
        return found
    overlaps = box_iou(objects, boxes)
    best, which = overlaps.max(0)
    found = torch.where(best >= rule.negative, NEITHER, found)
    found = torch.where(best >= rule.positive, which, found)
    if rule.least is None:
        return found
    most = overlaps.amax(1, keepdim=True)
    numbers = torch.arange(1, len(objects) + 1, device=boxes.device)[:, None]
    last = (((overlaps == most) & (most >= rule.least)) * numbers).amax(0)  # of several objects the last one
    return torch.where(last > 0, last - 1, found)


def sampled(match: Tensor, count: int, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw boxes to train on: at most `share` of `count` with an object, the others background.

    Args:
        match: of `matched`.
        count: boxes to draw.
        share: largest share of those with an object.
        generator: on the CPU, of the image alone, so that other images and networks draw what they would
            have drawn.

    Returns:
        Places of boxes with an object, and of background.
    """
    positive = _drawn((match >= 0).nonzero()[:, 0], int(count * share), generator)
    negative = _drawn((match == BACKGROUND).nonzero()[:, 0], count - len(positive), generator)
    return positive, negative


def _drawn(places: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` of the places at random; all of them, in order, if there are no more."""
    order = torch.randperm(len(places), generator=generator)  # drawn in any case, so that later draws stay
    if len(places) <= count:
        return places
    return places[order[:count].to(places.device)]
