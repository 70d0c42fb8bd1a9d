"""Detection: every part against an independent judge, and published sizes and operations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tests.tasks.configured import configure
from torch import Tensor
from torchvision.models.detection import _utils as parts
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import MultiScaleRoIAlign, box_iou, roi_align
from torchvision.ops.poolers import LevelMapper

from ablate import data
from ablate.configuration import read_settings
from ablate.data import Instances
from ablate.data.encoding import encoded
from ablate.ops import costs
from ablate.tasks import detection, get
from ablate.tasks.detection import average_precision
from ablate.tasks.detection.heads import BoxHead, MaskHead, mask_targets
from ablate.tasks.detection.matching import BACKGROUND, NEITHER, Rule, matched, sampled
from ablate.tasks.detection.proposals import Anchors, Proposals
from ablate.tasks.detection.pyramid import Regions, level_of
from ablate.tasks.detection.settings import Settings

AREAS = (150, 400)
PUBLISHED = {  # millions of parameters with 80 classes, and multiply-accumulates at 1280×800, in 10⁹
    ("mask_rcnn", "lsa", "swin_tiny"): (48, 267),
    ("mask_rcnn", "elsa", "swin_tiny"): (49, None),
    ("mask_rcnn", "lsa", "swin_small"): (69, 359),
    ("mask_rcnn", "elsa", "swin_small"): (72, None),
    ("mask_rcnn", "na", "nat_mini"): (40, 225),
    ("mask_rcnn", "na", "nat_small"): (70, 330),
    ("cascade_rcnn", "lsa", "swin_tiny"): (86, 745),
    ("cascade_rcnn", "elsa", "swin_tiny"): (87, None),  # printed as 86, the same as Swin's
    ("cascade_rcnn", "lsa", "swin_small"): (107, 838),
    ("cascade_rcnn", "elsa", "swin_small"): (110, None),
    ("cascade_rcnn", "na", "nat_tiny"): (85, 737),
    ("cascade_rcnn", "na", "nat_base"): (147, 931),
}


def some_boxes(generator: torch.Generator, count: int, side: float = 60) -> Tensor:
    corner = torch.rand(count, 2, generator=generator) * side
    return torch.cat([corner, corner + 2 + torch.rand(count, 2, generator=generator) * side / 2], 1)


def some_instances(generator: torch.Generator, count: int, classes: int = 5) -> Instances:
    boxes = some_boxes(generator, count).round()
    masks = torch.zeros(count, 96, 96, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.long().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    return Instances(boxes, torch.randint(classes, (count,), generator=generator), masks)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5), st.integers(0, 40), st.sampled_from([None, 0.3, 0.5]), st.integers(0, 2**31))
def test_matching_is_mmdetections(objects: int, boxes: int, least: float | None, seed: int) -> None:
    """Written out: thresholds first, then each object in turn takes the boxes that overlap it most."""
    generator = torch.Generator().manual_seed(seed)
    truth, found = some_boxes(generator, objects).round(), some_boxes(generator, boxes).round()
    found = torch.cat([found, truth[:1], truth[:1]])  # ties
    rule = Rule(0.6, 0.4, least)
    overlaps = box_iou(truth, found)
    expected = []
    for column in overlaps.T:
        best = float(column.max()) if objects else 0.0
        expected.append(BACKGROUND if best < 0.4 else int(column.argmax()) if best >= 0.6 else NEITHER)
    for number, row in enumerate(overlaps):
        if least is not None and row.max() >= least:
            for place in (row == row.max()).nonzero()[:, 0].tolist():
                expected[place] = number
    assert matched(truth, found, rule).tolist() == expected


def test_draws_belong_to_an_image() -> None:
    """Counts are exact, draws are of the right kind, and the same generator draws the same."""
    match = torch.tensor([0, 1, -1, -2, -1, 0, -1, -1])
    positive, negative = sampled(match, 4, 0.5, torch.Generator().manual_seed(0))
    assert len(positive) == len(negative) == 2
    assert (match[positive] >= 0).all()
    assert (match[negative] == BACKGROUND).all()
    few = sampled(torch.tensor([-1, -1]), 4, 0.5, torch.Generator())
    assert [part.tolist() for part in few] == [[], [0, 1]]
    again = sampled(match, 4, 0.5, torch.Generator().manual_seed(0))
    assert [part.tolist() for part in again] == [positive.tolist(), negative.tolist()]


def test_levels_are_torchvisions() -> None:
    boxes = some_boxes(torch.Generator().manual_seed(0), 500, 900)
    assert torch.equal(level_of(boxes, 4, 56), LevelMapper(2, 5)([boxes]))


def test_regions_are_torchvisions_half_a_pixel_to_the_left_and_sampled_fully() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 24, 24, generator=generator, dtype=torch.float64)
    boxes = [some_boxes(generator, count).double() for count in (4, 0)]
    mine = Regions(7, [4])([x], boxes)
    pooled = MultiScaleRoIAlign(["0"], 7, sampling_ratio=0)
    moved = [one - 2 for one in boxes]  # half a position of 4 pixels
    wide = ((boxes[0][:, 2:] - boxes[0][:, :2]) >= 4).all(1)  # torchvision makes others one position wide
    theirs = pooled({"0": x}, moved, [(96, 96)] * 2)
    assert wide.sum() >= 2
    torch.testing.assert_close(mine[wide], theirs[wide])
    torch.testing.assert_close(mine, roi_align(x, boxes, 7, 1 / 4, 0, aligned=True))
    assert not torch.allclose(mine, roi_align(x, boxes, 7, 1 / 4, 2, aligned=False), atol=1e-2)


def test_losses_of_proposals_are_torchvisions_but_for_l1() -> None:
    """With smooth L1, all anchors drawn and one object in an image, about as large as an anchor."""
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(0)
    boxes = torch.tensor([[[9.0, 7, 40, 41]], [[20.0, 30, 70, 90]]])
    instances = [some_instances(generator, 1)._replace(boxes=one) for one in boxes]
    images = ImageList(torch.zeros(2, 1, 96, 96), [(96, 96)] * 2)
    maps = [torch.randn(2, 8, 96 // r, 96 // r, generator=generator) for r in (8, 16)]
    everything = 10**6
    mine = Proposals(8, 4, [8, 16], (50, 50), everything, smooth=True).train()
    ends = {"training": 50, "testing": 50}
    theirs = RegionProposalNetwork(
        mine.anchor_generator, mine.head, 0.7, 0.3, everything, 1.0, ends, ends, 0.7
    ).train()
    targets = [{"boxes": one.boxes} for one in instances]
    _, expected = theirs(images, {str(number): one for number, one in enumerate(maps)}, targets)
    _, found = mine(images, maps, instances, [torch.Generator()] * 2)
    assert found["proposal_box"] > 0
    torch.testing.assert_close(found["proposal_class"], expected["loss_objectness"])
    torch.testing.assert_close(found["proposal_box"], expected["loss_rpn_box_reg"])
    plain = Proposals(8, 4, [8, 16], (50, 50), everything, smooth=False).train()
    plain.load_state_dict(mine.state_dict())
    assert plain(images, maps, instances, [torch.Generator()] * 2)[1]["proposal_box"] > found["proposal_box"]


def test_anchors_are_torchvisions_but_for_rounding_and_exact_strides() -> None:
    mine = Anchors(8, [4, 8])
    plain = AnchorGenerator(((32,), (64,)), ((0.5, 1.0, 2.0),) * 2)
    images = ImageList(torch.zeros(1, 1, 64, 64), [(64, 64)])
    maps = [torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 8, 8)]
    (found,), (expected,) = mine(images, maps), plain(images, maps)
    assert (found - expected).abs().max() <= 0.5
    odd = mine(images, [torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 7, 7)])[0]
    assert odd[-1, 0] - odd[-4, 0] == 8  # the next position of the second map, 8 pixels on


def box_head(regions: int, *, overlap: bool = False) -> BoxHead:
    task = configure(
        "task=detection",
        "task.channels=4",
        "task.hidden=16",
        f"task.sampled_regions={regions}",
        f"task.overlap_loss={overlap}",
    )["task"]
    return BoxHead(read_settings(Settings, "task", task), 5, Rule(0.5, 0.5, 0.5), (0.1, 0.2))


def test_losses_of_regions() -> None:
    """Plain formulas over the drawn regions; background is the last class."""
    generator = torch.Generator().manual_seed(5)
    torch.manual_seed(0)
    instances = [some_instances(generator, 3), some_instances(generator, 0), some_instances(generator, 2)]
    head = box_head(24)
    drawn = [
        head.draw(torch.cat([one.boxes + 1, some_boxes(generator, 30)]), one.boxes, torch.Generator())
        for one in instances
    ]
    count = sum(len(one.boxes) for one in drawn)
    assert [len(one.objects) > 0 for one in drawn] == [True, False, True]
    logits, offsets = torch.randn(count, 6), torch.randn(count, 5, 4)
    found = head.loss(logits, offsets, drawn, instances)
    classes, distance, first = torch.full((count,), 5), torch.zeros(()), 0
    coder = parts.BoxCoder((10.0, 10.0, 5.0, 5.0))
    for one, objects in zip(drawn, instances, strict=True):
        for place, number in enumerate(one.objects.tolist()):
            classes[first + place] = label = objects.classes[number]
            goal = coder.encode_single(objects.boxes[number][None], one.boxes[place][None])
            distance = distance + (offsets[first + place, label] - goal[0]).abs().sum()
        first += len(one.boxes)
    torch.testing.assert_close(found["region_class"], F.cross_entropy(logits, classes))
    torch.testing.assert_close(found["region_box"], distance / count)
    exact = box_head(24, overlap=True)
    goals = [
        coder.encode_single(o.boxes[d.objects], d.positive) for d, o in zip(drawn, instances, strict=True)
    ]
    perfect = torch.zeros_like(offsets)
    perfect[classes < 5, classes[classes < 5]] = torch.cat(goals)
    torch.testing.assert_close(
        exact.loss(logits, perfect, drawn, instances)["region_box"], torch.tensor(0.0), atol=1e-5, rtol=0
    )


def test_masks_that_fit_have_no_loss_and_targets_are_the_objects_cut_out() -> None:
    generator = torch.Generator().manual_seed(2)
    instances = some_instances(generator, 3)
    whole = mask_targets(instances.masks, torch.arange(3), instances.boxes)
    assert (whole.mean((1, 2)) > 0.98).all()  # rectangles fill their boxes but for a rounded corner
    head = MaskHead(4, 1, 5)
    drawn = box_head(8).draw(instances.boxes[:0], instances.boxes, torch.Generator())
    targets = mask_targets(instances.masks, drawn.objects, drawn.positive)
    logits = torch.full((len(targets), 5, 28, 28), -50.0)
    places = torch.arange(len(targets))
    logits[places, instances.classes[drawn.objects]] = 100 * targets - 50
    assert float(head.loss(logits, [drawn], [instances])) < 1e-6


def test_average_precision_is_pycocotools_from_files(tmp_path: Path) -> None:
    """Objects and detections go through JSON files, as COCO's own tools read them."""
    generator = torch.Generator().manual_seed(1)
    images, objects, found = [], [], []
    for number in range(1, 7):
        instances = some_instances(generator, 4)
        crowd = np.array([False, False, False, number == 3])
        truth = _truth(instances, crowd)
        noisy = instances.boxes + torch.randn(4, 4, generator=generator) * 2
        scores = torch.rand(4, generator=generator)
        masks = torch.rand(4, 28, 28, generator=generator) * 0.3 + 0.4
        classes = instances.classes.clone()
        classes[0] = (classes[0] + 1) % 5
        detected = detection.detector.Detections(noisy * 2, scores, classes, masks)
        one = average_precision.judged(truth, detected, (192, 192))
        images.append(one)
        for place in range(4):
            mask = {"size": [96, 96], "counts": truth.masks[place]["counts"].decode()}
            objects.append(
                {
                    **{"id": len(objects) + 1, "image_id": number, "iscrowd": int(crowd[place])},
                    **{"category_id": int(truth.classes[place]) + 1, "segmentation": mask},
                    **{"bbox": truth.boxes[place].tolist(), "area": float(truth.areas[place])},
                }
            )
            mine = {"size": [96, 96], "counts": one.masks[place]["counts"].decode()}
            found.append(
                {
                    **{"image_id": number, "category_id": int(classes[place]) + 1, "segmentation": mine},
                    **{"bbox": one.boxes[place].tolist(), "score": float(scores[place])},
                }
            )
    shown = [{"id": number, "height": 96, "width": 96} for number in range(1, 7)]
    categories = [{"id": number, "name": str(number)} for number in range(1, 6)]
    (tmp_path / "truth.json").write_text(
        json.dumps({"info": {}, "images": shown, "categories": categories, "annotations": objects})
    )
    boxes_only = [{k: v for k, v in entry.items() if k != "segmentation"} for entry in found]
    masks_only = [{k: v for k, v in entry.items() if k != "bbox"} for entry in found]
    figures = detection.figures(images, 5, AREAS).metrics
    for kind, entries, name in (("box", boxes_only, "bbox"), ("mask", masks_only, "segm")):
        (tmp_path / "found.json").write_text(json.dumps(entries))
        truth_file = COCO(str(tmp_path / "truth.json"))
        judge = COCOeval(truth_file, truth_file.loadRes(str(tmp_path / "found.json")), name)
        small, large = AREAS
        judge.params.areaRng = [[0, 1e10], [0, small], [small, large], [large, 1e10]]
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
        expected = [100 * value for value in judge.stats[:3]]
        assert 0 < expected[0] < 100
        mine = [figures[f"{kind}_{threshold}"] for threshold in ("ap", "ap50", "ap75")]
        assert mine == pytest.approx(expected, abs=1e-5)
        sizes = [figures[f"{kind}_ap_{size}"] for size in ("small", "medium", "large")]
        assert sizes == pytest.approx([100 * value for value in judge.stats[3:6]], abs=1e-5)
        details = average_precision.of(images, 5, kind)
        assert np.nanmean(details.by_class) == pytest.approx(expected[0], abs=1e-4)


def _truth(instances: Instances, crowd: np.ndarray) -> data.Truth:
    boxes = instances.boxes.double().numpy().copy()
    boxes[:, 2:] -= boxes[:, :2]
    masks = encoded(instances.masks.numpy())
    areas = instances.masks.sum((1, 2)).double().numpy()
    return data.Truth((96, 96), boxes, instances.classes.numpy(), masks, areas, crowd)


@pytest.mark.parametrize(("task", "op", "host"), PUBLISHED)
def test_published_sizes_and_operations(
    task: str, op: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ELSA keeps Swin's attention in the last stage."""
    stages = ("host.stages=[1,2,3]",) if op == "elsa" else ()
    config = configure(f"task={task}", f"op={op}", f"host={host}", *stages)
    coco = data.DataInfo(80, (3, 800, 1280), annotation=data.INSTANCES, things=80)
    monkeypatch.setattr(data, "info", lambda config: coco)
    with torch.device("meta"):
        model = get("detection").build(config)
    millions, macs = PUBLISHED[task, op, host]
    assert costs.parameters(model) / 1e6 == pytest.approx(millions, abs=0.5)
    if macs is not None:
        assert costs.macs(model, 1, 3, 800, 1280) / 1e9 == pytest.approx(macs, rel=0.003)
