"""Stand-ins in the layouts of ImageNet, COCO and ADE20K: a handful of empty images, for submissions only."""

from __future__ import annotations

import json
from pathlib import Path

from tests.data.coco_files import annotation, rectangle

IMAGES = 24  # more than a batch
CLASSES = 80  # of COCO


def write(root: Path) -> Path:
    """Write the three sets below `root`; the image files hold nothing (`data.verify=off`)."""
    for part in ("train", "val"):
        (root / "imagenet" / part / "n01440764").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        _coco(root / "coco", split)
    for split in ("training", "validation"):
        for number in range(IMAGES):
            for folder, ending in (("images", "jpg"), ("annotations", "png")):
                _empty(root / "ADEChallengeData2016" / folder / split / f"ADE_{number}.{ending}")
    return root


def _coco(folder: Path, split: str) -> None:
    box = (10, 10, 30, 20)
    described = {
        "images": [
            {"id": number, "file_name": f"{number}.jpg", "height": 48, "width": 64}
            for number in range(IMAGES)
        ],
        "annotations": [annotation(at + 1, at, box, [rectangle(*box)], category=1) for at in range(IMAGES)],
        "categories": [{"id": at + 1, "name": f"class {at}"} for at in range(CLASSES)],
    }
    file = folder / "annotations" / f"instances_{split}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(described))
    for number in range(IMAGES):
        _empty(folder / split / f"{number}.jpg")


def _empty(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
