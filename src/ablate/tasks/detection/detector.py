"""Mask R-CNN (He et al., 2017) and Cascade R-CNN (Cai and Vasconcelos, 2018) on a host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import batched_nms

from ablate.data import Instances
from ablate.hosts.features import Features, Level
from ablate.tasks.detection.heads import BoxHead, Drawn, MaskHead, box_regions, mask_regions
from ablate.tasks.detection.matching import Rule
from ablate.tasks.detection.proposals import Proposals
from ablate.tasks.detection.pyramid import Pyramid
from ablate.tasks.detection.settings import Settings

SCORE = 0.05  # of a detection, at least
NMS = 0.5
MOST = 100  # detections in an image
STAGE_WEIGHTS = (1.0, 0.5, 0.25)  # of the losses of a cascade's stages
SPREADS = ((0.1, 0.2), (0.05, 0.1), (0.033, 0.067))  # of the offsets in each stage


class Detections(NamedTuple):
    """Objects found in one image, the surest first."""

    boxes: Tensor  # (n, 4): left, top, right, bottom in pixels of the image that the network was given
    scores: Tensor  # (n,) in (0, 1)
    classes: Tensor  # (n,)
    masks: Tensor | None  # (n, 28, 28): probability of each position of the box


class Detector(nn.Module):
    """A host's feature maps, and all that finds objects in them.

    Args:
        features: of the host.
        heads: on them.
        areas: pixels below which an object is small, and from which on it is large, for its evaluation.
    """

    def __init__(self, features: Features, heads: Heads, areas: tuple[int, int]) -> None:
        super().__init__()
        self.areas = areas
        self.features, self.heads, self.classes = features, heads, heads.classes

    def forward(
        self,
        images: Tensor,
        sizes: Sequence[tuple[int, int]] | None = None,
        instances: Sequence[Instances] | None = None,
        seeds: Sequence[int] = (),
    ) -> Any:
        """Return the losses of training images by name, or the `Detections` of each image.

        Args:
            images: (B, C, H, W).
            sizes: (height, width) of each image without what fills it up; all of it if None.
            instances: the objects of each image, in training.
            seeds: of each image's draws, in training.
        """
        maps = self.heads.pyramid(self.features(images))
        if images.is_meta:
            return self.heads.operations(maps)
        if sizes is None:
            sizes = [(images.shape[2], images.shape[3])] * len(images)
        return self.heads(ImageList(images, list(sizes)), maps, instances, seeds)


class Heads(nn.Module):
    """A feature pyramid, proposals, and one or several heads on regions.

    Args:
        levels: of the host's maps.
        classes: of objects.
        settings: of the task.
    """

    def __init__(self, levels: Sequence[Level], classes: int, settings: Settings) -> None:
        super().__init__()
        channels, stages = settings.channels, len(settings.thresholds)
        self.pyramid = Pyramid(levels, channels)
        reductions = self.pyramid.reductions
        self.proposals = Proposals(
            channels,
            settings.anchor,
            reductions,
            (settings.training_proposals, settings.proposals),
            settings.sampled_anchors,
            smooth=settings.smooth_proposals,
        )
        # the last map is for proposals only
        self.box_regions, self.mask_regions = box_regions(reductions[:-1]), mask_regions(reductions[:-1])
        self.box_heads = nn.ModuleList(
            BoxHead(settings, classes, Rule(threshold, threshold, threshold if stages == 1 else None), spread)
            for threshold, spread in zip(settings.thresholds, SPREADS, strict=False)
        )
        masks = stages if settings.masks else 0
        self.mask_heads = nn.ModuleList(
            MaskHead(channels, settings.mask_convolutions, classes) for _ in range(masks)
        )
        self.classes, self.stages, self.count = classes, stages, settings.proposals

    @torch.compiler.disable  # numbers of boxes differ from image to image
    def forward(
        self,
        images: ImageList,
        maps: list[Tensor],
        instances: Sequence[Instances] | None,
        seeds: Sequence[int],
    ) -> Any:
        """Maps of the pyramid → as `Detector`."""
        sizes = images.image_sizes
        if instances is None:
            boxes, _ = self.proposals(images, maps)
            return self._detections(maps[:-1], boxes, sizes)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        boxes, losses = self.proposals(images, maps, instances, generators)
        return {**losses, **self._losses(maps[:-1], boxes, sizes, instances, generators)}

    def _losses(
        self,
        maps: list[Tensor],
        boxes: list[Tensor],
        sizes: list[tuple[int, int]],
        instances: Sequence[Instances],
        generators: list[torch.Generator],
    ) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        for stage, head in enumerate(self._box_heads()):
            drawn = [
                head.draw(one, objects.boxes, generator)
                for one, objects, generator in zip(boxes, instances, generators, strict=True)
            ]
            logits, offsets = head(self.box_regions(maps, [one.boxes for one in drawn]))
            found = head.loss(logits, offsets, drawn, instances)
            if self.mask_heads:
                mask_head = cast(MaskHead, self.mask_heads[stage])
                masks = mask_head(self.mask_regions(maps, [one.positive for one in drawn]))
                found["region_mask"] = mask_head.loss(masks, drawn, instances)
            losses |= {f"{name}_{stage + 1}": STAGE_WEIGHTS[stage] * loss for name, loss in found.items()}
            if stage + 1 < self.stages:
                boxes = self._refined(head, drawn, logits, offsets, instances, sizes)
        return losses

    def _box_heads(self) -> list[BoxHead]:
        return [cast(BoxHead, head) for head in self.box_heads]

    @torch.no_grad()
    def _refined(
        self,
        head: BoxHead,
        drawn: list[Drawn],
        logits: Tensor,
        offsets: Tensor,
        instances: Sequence[Instances],
        sizes: list[tuple[int, int]],
    ) -> list[Tensor]:
        """Move the regions of a stage by the offsets of their class; objects' own boxes are left out."""
        counts = [len(one.boxes) for one in drawn]
        refined = []
        for one, mine, moves, objects, size in zip(
            drawn, logits.split(counts), offsets.split(counts), instances, sizes, strict=True
        ):
            classes = mine[:, :-1].argmax(1)  # of background: the class it is most like
            classes[: len(one.objects)] = objects.classes[one.objects]
            refined.append(head.refined(one.boxes, moves, classes, size)[~one.own])
        return refined

    def _detections(
        self, maps: list[Tensor], boxes: list[Tensor], sizes: list[tuple[int, int]]
    ) -> list[Detections]:
        counts = [len(one) for one in boxes]
        total = torch.zeros((), device=maps[0].device)
        for stage, head in enumerate(self._box_heads()):
            logits, offsets = head(self.box_regions(maps, boxes))
            total = total + logits
            if stage + 1 < self.stages:
                classes = logits[:, :-1].argmax(1)
                boxes = [
                    head.refined(one, moves, mine, size)
                    for one, moves, mine, size in zip(
                        boxes, offsets.split(counts), classes.split(counts), sizes, strict=True
                    )
                ]
        scores = (total / self.stages).softmax(1)[:, :-1]  # a cascade's stages are averaged as logits
        found = [
            kept(mine, head.boxes(one, moves, size))
            for one, mine, moves, size in zip(
                boxes, scores.split(counts), offsets.split(counts), sizes, strict=True
            )
        ]
        return self._with_masks(maps, found) if self.mask_heads else found

    def _with_masks(self, maps: list[Tensor], found: list[Detections]) -> list[Detections]:
        regions = self.mask_regions(maps, [one.boxes for one in found])
        masks = torch.stack([head(regions).sigmoid() for head in self.mask_heads]).mean(0)
        classes = torch.cat([one.classes for one in found])
        mine = masks[torch.arange(len(classes), device=classes.device), classes]
        counts = [len(one.boxes) for one in found]
        return [one._replace(masks=part) for one, part in zip(found, mine.split(counts), strict=True)]

    def operations(self, maps: list[Tensor]) -> None:
        """Compute on so many regions as there are proposals and detections, whatever they are.

        Suppression of overlapping boxes has no operations on the meta device; mmdetection counts in the
        same way.
        """
        self.proposals.head(maps)
        channels = maps[0].shape[1]
        for heads, regions, count in (
            (self.box_heads, self.box_regions, self.count),
            (self.mask_heads, self.mask_regions, MOST),
        ):
            for head in heads:
                head(maps[0].new_empty((count, channels, regions.side, regions.side)))


def kept(scores: Tensor, boxes: Tensor) -> Detections:
    """Return what is sure enough and not suppressed by a surer box of its class.

    Args:
        scores: (n, classes).
        boxes: (n, classes, 4).
    """
    region, classes = (scores > SCORE).nonzero(as_tuple=True)
    scores, boxes = scores[region, classes], boxes[region, classes]
    best = batched_nms(boxes, scores, classes, NMS)[:MOST]
    return Detections(boxes[best], scores[best], classes[best], None)
