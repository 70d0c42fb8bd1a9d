"""Heads on regions: a class and a box of each, and a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import clip_boxes_to_image, generalized_box_iou_loss, roi_align

from ablate.data import Instances
from ablate.tasks.contract import BatchCount, RegionNorm
from ablate.tasks.detection.matching import Rule, matched, sampled
from ablate.tasks.detection.proposals import box_distance
from ablate.tasks.detection.pyramid import Regions
from ablate.tasks.detection.settings import Settings

BOX_SIDE, MASK_SIDE = 7, 14  # positions of a region for the two heads; a mask is twice as fine
SHARE = 0.25  # largest share of regions with an object among those that are drawn
GIOU_WEIGHT = 10.0
INSIDE = 0.5  # of a mask's position, from which on it is inside


class Drawn(NamedTuple):
    """Regions of one image that are trained on: those with an object first."""

    boxes: Tensor  # (n, 4)
    objects: Tensor  # (p,): number of the object of each of the first p
    own: Tensor  # (n,): the region is the box of an object

    @property
    def positive(self) -> Tensor:
        """The regions with an object, (p, 4)."""
        return self.boxes[: len(self.objects)]


class BoxHead(nn.Module):
    """Class and box of each region; trained on those that overlap an object by a threshold.

    Args:
        settings: `channels` of the maps; `hidden`, width of the fully connected layers, two of them or one
            after the `convolutions` with batch norm; `sampled_regions` that are drawn of each image; with
            `overlap_loss` the loss is generalised intersection over union of decoded boxes, in place of L1
            of offsets.
        classes: of objects; one more logit, the last one, is of the background.
        rule: see `Rule`.
        spread: standard deviation that the offsets of a box are divided by: of its centre, of its size.
    """

    def __init__(self, settings: Settings, classes: int, rule: Rule, spread: tuple[float, float]) -> None:
        super().__init__()
        channels, hidden = settings.channels, settings.hidden
        layers: nn.Module
        if settings.convolutions:
            size = (channels, BOX_SIDE, BOX_SIDE)
            layers = FastRCNNConvFCHead(size, [channels] * settings.convolutions, [hidden], RegionNorm)
        else:
            layers = TwoMLPHead(channels * BOX_SIDE**2, hidden)
        self.layers = layers
        self.classifier = nn.Linear(hidden, classes + 1)
        self.regressor = nn.Linear(hidden, 4 * classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.normal_(self.regressor.weight, std=0.001)
        for layer in (self.classifier, self.regressor):
            nn.init.zeros_(layer.bias)
        self.classes, self.rule = classes, rule
        self.count, self.overlap = settings.sampled_regions, settings.overlap_loss
        centre, size_spread = spread
        self.coder = BoxCoder((1 / centre, 1 / centre, 1 / size_spread, 1 / size_spread))
        self.total = BatchCount()

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """(n, channels, 7, 7) → logits (n, classes + 1) and offsets (n, classes, 4), float32."""
        hidden = self.layers(regions)
        offsets = self.regressor(hidden).float()
        return self.classifier(hidden).float(), offsets.view(-1, self.classes, 4)

    def draw(self, boxes: Tensor, objects: Tensor, generator: torch.Generator) -> Drawn:
        """Draw regions of one image, among them the boxes of its objects.

        Args:
            boxes: proposals, (n, 4).
            objects: boxes of the objects, (m, 4).
            generator: of the image.
        """
        boxes = torch.cat([objects, boxes])
        match = matched(objects, boxes, self.rule)
        positive, negative = sampled(match, self.count, SHARE, generator)
        places = torch.cat([positive, negative])
        return Drawn(boxes[places], match[positive], places < len(objects))

    def loss(
        self, logits: Tensor, offsets: Tensor, drawn: Sequence[Drawn], instances: Sequence[Instances]
    ) -> dict[str, Tensor]:
        """Sums over the regions of all images, divided by their number in the whole batch."""
        labels, targets, chosen, first = [], [], [], 0
        for one, objects in zip(drawn, instances, strict=True):
            mine = objects.classes[one.objects]
            labels.append(F.pad(mine, (0, len(one.boxes) - len(mine)), value=self.classes))
            targets.append(objects.boxes[one.objects])
            chosen.append(torch.arange(first, first + len(mine), device=mine.device))
            first += len(one.boxes)
        places, classes, goals = torch.cat(chosen), torch.cat(labels), torch.cat(targets)
        total = self.total(first, logits.device)
        boxes = torch.cat([one.positive for one in drawn])
        mine = offsets[places, classes[places]]
        if self.overlap:
            found = self.coder.decode_single(mine, boxes)
            distance = GIOU_WEIGHT * generalized_box_iou_loss(found, goals, reduction="sum")
        else:
            distance = box_distance(mine, self.coder.encode_single(goals, boxes), smooth=False)
        return {
            "region_class": F.cross_entropy(logits, classes, reduction="sum") / total,
            "region_box": distance / total,
        }

    @torch.no_grad()
    def refined(self, boxes: Tensor, offsets: Tensor, classes: Tensor, size: tuple[int, int]) -> Tensor:
        """Move regions (n, 4) of one image by the offsets of a class each, (n,), and keep them inside."""
        mine = offsets[torch.arange(len(boxes), device=boxes.device), classes]
        return clip_boxes_to_image(self.coder.decode_single(mine, boxes), size)

    def boxes(self, regions: Tensor, offsets: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the box of each region (n, 4) for every class, inside of the image: (n, classes, 4)."""
        found = self.coder.decode_single(offsets.flatten(1), regions)
        return clip_boxes_to_image(found.view(len(regions), self.classes, 4), size)


class MaskHead(nn.Module):
    """A mask of 28×28 for each class of a region.

    Args:
        channels: of the maps and of every layer.
        convolutions: before the transposed one.
        classes: of objects.
    """

    def __init__(self, channels: int, convolutions: int, classes: int) -> None:
        super().__init__()
        self.layers = MaskRCNNHeads(channels, [channels] * convolutions, 1)
        self.predictor = MaskRCNNPredictor(channels, channels, classes)
        self.total = BatchCount()

    def forward(self, regions: Tensor) -> Tensor:
        """(n, channels, 14, 14) → logits (n, classes, 28, 28), float32."""
        logits: Tensor = self.predictor(self.layers(regions))
        return logits.float()

    def loss(self, logits: Tensor, drawn: Sequence[Drawn], instances: Sequence[Instances]) -> Tensor:
        """Mean over regions with an object and over positions, in the whole batch."""
        targets = [
            mask_targets(objects.masks, one.objects, one.positive)
            for one, objects in zip(drawn, instances, strict=True)
        ]
        classes = torch.cat(
            [objects.classes[one.objects] for one, objects in zip(drawn, instances, strict=True)]
        )
        mine = logits[torch.arange(len(classes), device=classes.device), classes]
        total = self.total(len(classes), logits.device) * (2 * MASK_SIDE) ** 2
        return F.binary_cross_entropy_with_logits(mine, torch.cat(targets), reduction="sum") / total


def mask_targets(masks: Tensor, objects: Tensor, boxes: Tensor) -> Tensor:
    """Cut each region's object out of its mask: (p, 28, 28), 1 inside.

    Args:
        masks: of the image's objects, (m, H, W).
        objects: number of the object of each region, (p,).
        boxes: of the regions, (p, 4).
    """
    rois = torch.cat([objects[:, None].to(boxes), boxes], 1)
    if not len(masks):
        return boxes.new_zeros((0, 2 * MASK_SIDE, 2 * MASK_SIDE))
    found = roi_align(masks[:, None].to(boxes), rois, 2 * MASK_SIDE, aligned=True)
    return (found[:, 0] >= INSIDE).to(boxes)


def box_regions(reductions: Sequence[int]) -> Regions:
    """Regions for a `BoxHead`."""
    return Regions(BOX_SIDE, reductions)


def mask_regions(reductions: Sequence[int]) -> Regions:
    """Regions for a `MaskHead`."""
    return Regions(MASK_SIDE, reductions)
