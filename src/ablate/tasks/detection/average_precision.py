"""Average precision of boxes and masks, computed by pycocotools."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torchvision.models.detection.roi_heads import paste_masks_in_image

from ablate.data import Truth
from ablate.data.encoding import encoded
from ablate.tasks.detection.detector import MOST, Detections

INSIDE = 0.5  # probability from which on a pixel is inside of a mask
RANGES = ("all", "small", "medium", "large")
LARGEST = 1e10  # pixels; an area beyond all
AREAS = (32**2, 96**2)  # COCO's
KINDS = {"box": "bbox", "mask": "segm"}  # our names, and pycocotools'


class Judged(NamedTuple):
    """One image: its objects and what was found, at the size of the image's file."""

    truth: Truth
    boxes: NDArray[np.float64]  # (n, 4): left, top, width, height
    scores: NDArray[np.float64]  # (n,)
    classes: NDArray[np.int64]  # (n,)
    masks: list[dict[str, Any]] | None  # run-length encoded


@dataclass(frozen=True)
class Precision:
    """Average precision in percent; NaN where there is no object.

    Attributes:
        overall: mean over classes and over thresholds of overlap from 0.50 to 0.95.
        at50: at threshold 0.50.
        at75: at threshold 0.75.
        by_range: of small, medium and large objects.
        by_class: of each class.
    """

    overall: float
    at50: float
    at75: float
    by_range: dict[str, float]
    by_class: list[float]


def judged(truth: Truth, found: Detections, size: tuple[int, int]) -> Judged:
    """Return an image's detections at the size of its file.

    Args:
        truth: its objects.
        found: at the size that the network was given.
        size: (height, width) of the image there, without what fills it up.
    """
    height, width = truth.size
    scale = found.boxes.new_tensor([width / size[1], height / size[0]] * 2)
    boxes = found.boxes.float() * scale
    masks = None
    if found.masks is not None:
        pasted = paste_masks_in_image(found.masks[:, None].float(), boxes, (height, width))[:, 0]
        masks = encoded((pasted >= INSIDE).cpu().numpy())
    corners = boxes.double().cpu().numpy()
    corners[:, 2:] -= corners[:, :2]
    scores, classes = found.scores.double().cpu().numpy(), found.classes.cpu().numpy()
    return Judged(truth, corners, scores, classes, masks)


def of(images: Sequence[Judged], classes: int, kind: str, areas: tuple[int, int] = AREAS) -> Precision:
    """Return the average precision over a whole split.

    Args:
        images: all of the split.
        classes: of objects.
        kind: `box` or `mask`.
        areas: pixels below which an object is small, and from which on it is large.
    """
    from pycocotools.cocoeval import COCOeval

    with redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluation = COCOeval(*_as_coco(images, classes, kind), KINDS[kind])
        small, large = areas
        evaluation.params.maxDets = [1, 10, MOST]
        evaluation.params.areaRng = [[0, LARGEST], [0, small], [small, large], [large, LARGEST]]
        evaluation.params.areaRngLbl = list(RANGES)
        evaluation.evaluate()
        evaluation.accumulate()
    table = evaluation.eval["precision"][..., -1]  # thresholds, recalls, classes, ranges
    thresholds = np.round(evaluation.params.iouThrs, 2).tolist()
    every = table[..., 0]
    return Precision(
        _mean(every),
        _mean(every[thresholds.index(0.5)]),
        _mean(every[thresholds.index(0.75)]),
        {name: _mean(table[..., number]) for number, name in enumerate(RANGES) if number},
        [_mean(every[:, :, number]) for number in range(classes)],
    )


def _mean(precisions: NDArray[np.float64]) -> float:
    """Mean in percent of those that are defined; pycocotools marks others with −1."""
    known = precisions[precisions > -1]
    return round(100 * float(known.mean()), 5) if known.size else float("nan")


def _as_coco(images: Sequence[Judged], classes: int, kind: str) -> tuple[Any, Any]:
    """Return objects and detections as pycocotools' data sets; a detection has the area of its kind."""
    from pycocotools import mask as encoding

    objects: list[Mapping[str, Any]] = []
    found: list[Mapping[str, Any]] = []
    for number, (truth, boxes, scores, labels, masks) in enumerate(images, 1):
        for place, label in enumerate(truth.classes.tolist()):
            entry = _entry(number, len(objects), label, truth.boxes[place], truth.masks[place])
            more = {"area": float(truth.areas[place]), "iscrowd": int(truth.crowd[place])}
            objects.append({**entry, **more})
        for place, label in enumerate(labels.tolist()):
            mask = None if masks is None else masks[place]
            entry = _entry(number, len(found), label, boxes[place], mask)
            area = float(encoding.area(mask) if kind == "mask" else boxes[place, 2] * boxes[place, 3])
            found.append({**entry, "area": area, "iscrowd": 0, "score": float(scores[place])})
    shown = [
        {"id": number, "height": one.truth.size[0], "width": one.truth.size[1]}
        for number, one in enumerate(images, 1)
    ]
    named = [{"id": label} for label in range(classes)]
    return _data_set(shown, named, objects), _data_set(shown, named, found)


def _data_set(images: list[Any], categories: list[Any], annotations: list[Any]) -> Any:
    from pycocotools.coco import COCO

    found = COCO()
    found.dataset = {"images": images, "categories": categories, "annotations": annotations}
    found.createIndex()
    return found


def _entry(
    image: int, before: int, label: int, box: NDArray[np.float64], mask: dict[str, Any] | None
) -> dict[str, Any]:
    """Return what an object and a detection have in common; ids from 1 on: pycocotools takes 0 for none."""
    entry = {"image_id": image, "id": before + 1, "category_id": label, "bbox": box.tolist()}
    return entry if mask is None else {**entry, "segmentation": mask}
