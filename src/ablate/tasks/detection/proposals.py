"""Region proposal network (Ren et al., 2015): torchvision's, with mmdetection's matching and loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers

from ablate.data import Instances
from ablate.tasks.contract import BatchCount
from ablate.tasks.detection.matching import Rule, matched, sampled

RATIOS = (0.5, 1.0, 2.0)  # height by width of anchors
RULE = Rule(positive=0.7, negative=0.3, least=0.3)
BEFORE_NMS = 2  # candidates per level in training, by proposals in evaluation, which has as many candidates
NMS = 0.7
SHARE = 0.5  # largest share of anchors with an object among those that are drawn


class Anchors(AnchorGenerator):
    """torchvision's anchors, not rounded to pixels, on maps whose reductions are known.

    torchvision divides the sizes of image and map, 61 for the fifth map of 800 pixels, whose reduction is 64.
    """

    def __init__(self, side: float, reductions: Sequence[int]) -> None:
        self.reductions = tuple(reductions)
        super().__init__(tuple((side * one,) for one in reductions), (RATIOS,) * len(reductions))

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Return the anchors of each image, all levels in one: (anchors, 4), the same for all."""
        first = feature_maps[0]
        self.set_cell_anchors(first.dtype, first.device)
        strides = [[torch.tensor(one, device=first.device)] * 2 for one in self.reductions]
        found = torch.cat(self.grid_anchors([one.shape[-2:] for one in feature_maps], strides))
        return [found] * len(image_list.image_sizes)

    def generate_anchors(
        self,
        scales: Sequence[float],
        aspect_ratios: Sequence[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> Tensor:
        """Return the anchors around (0, 0): (scales · ratios, 4)."""
        roots = torch.tensor(aspect_ratios, dtype=dtype, device=device).sqrt()
        sides = torch.tensor(scales, dtype=dtype, device=device)
        widths, heights = ((sides[None] * factor[:, None]).flatten() for factor in (1 / roots, roots))
        return torch.stack([-widths, -heights, widths, heights], 1) / 2


class Float32Head(RPNHead):
    """torchvision's head, its figures in float32: a box in half precision is pixels beside itself."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Maps → scores (B, anchors, H, W) and offsets (B, 4 · anchors, H, W) of each."""
        scores, offsets = super().forward(x)
        return [one.float() for one in scores], [one.float() for one in offsets]


class Proposals(RegionProposalNetwork):
    """Boxes that may show an object.

    Args:
        channels: of the maps.
        side: of a square anchor, in positions of its map.
        reductions: pixels per position of each map.
        counts: proposals for an image, in training and in evaluation.
        anchors: drawn of each image to train on.
        smooth: smooth L1 with β = 1/9 in place of L1.
    """

    def __init__(
        self,
        channels: int,
        side: float,
        reductions: Sequence[int],
        counts: tuple[int, int],
        anchors: int,
        *,
        smooth: bool,
    ) -> None:
        super().__init__(
            Anchors(side, reductions),
            Float32Head(channels, len(RATIOS)),
            fg_iou_thresh=RULE.positive,
            bg_iou_thresh=RULE.negative,
            batch_size_per_image=anchors,
            positive_fraction=SHARE,
            pre_nms_top_n={"training": BEFORE_NMS * counts[1], "testing": counts[1]},
            post_nms_top_n={"training": counts[0], "testing": counts[1]},
            nms_thresh=NMS,
        )
        self.anchors, self.smooth = anchors, smooth
        self.total = BatchCount()

    def forward(
        self,
        images: ImageList,
        maps: list[Tensor],
        instances: Sequence[Instances] | None = None,
        generators: Sequence[torch.Generator] = (),
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return each image's proposals (n, 4), and in training the losses.

        Args:
            images: with the size of each one before it was filled up.
            maps: (B, channels, H, W) each, the finest first.
            instances: the objects of each image, in training.
            generators: of each image, in training.
        """
        scores, offsets = self.head(maps)
        anchors = self.anchor_generator(images, maps)
        per_level = [one[0].numel() for one in scores]
        flat_scores, flat_offsets = concat_box_prediction_layers(scores, offsets)
        boxes = self.box_coder.decode(flat_offsets.detach(), anchors).view(len(anchors), -1, 4)
        found, _ = self.filter_proposals(boxes, flat_scores, images.image_sizes, per_level)
        if instances is None:
            return found, {}
        return found, self._losses(flat_scores[:, 0], flat_offsets, anchors, instances, generators)

    def _losses(
        self,
        scores: Tensor,
        offsets: Tensor,
        anchors: list[Tensor],
        instances: Sequence[Instances],
        generators: Sequence[torch.Generator],
    ) -> dict[str, Tensor]:
        """Sums over the anchors that are drawn, divided by their number in the whole batch."""
        with_object, background, targets, first = [], [], [], 0
        for boxes, objects, generator in zip(anchors, instances, generators, strict=True):
            match = matched(objects.boxes, boxes, RULE)
            positive, negative = sampled(match, self.anchors, SHARE, generator)
            with_object.append(positive + first)
            background.append(negative + first)
            targets.append(self.box_coder.encode_single(objects.boxes[match[positive]], boxes[positive]))
            first += len(boxes)
        positive, negative = torch.cat(with_object), torch.cat(background)
        drawn = torch.cat([positive, negative])
        labels = (torch.arange(len(drawn), device=drawn.device) < len(positive)).to(scores.dtype)
        total = self.total(len(drawn), scores.device)
        classes = F.binary_cross_entropy_with_logits(scores[drawn], labels, reduction="sum")
        boxes = box_distance(offsets[positive], torch.cat(targets), smooth=self.smooth)
        return {"proposal_class": classes / total, "proposal_box": boxes / total}


def box_distance(offsets: Tensor, targets: Tensor, *, smooth: bool) -> Tensor:
    """Return the sum of the L1 distances, or of smooth L1 with β = 1/9."""
    if smooth:
        return F.smooth_l1_loss(offsets, targets, beta=1 / 9, reduction="sum")
    return F.l1_loss(offsets, targets, reduction="sum")
