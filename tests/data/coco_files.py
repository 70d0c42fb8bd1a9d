"""Tiny data sets in COCO's format, written for tests."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask

from ablate import data
from ablate.data.contract import INSTANCES

CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 90, "name": "bird"}]
SIZES = [(40, 60), (61, 35), (33, 97), (50, 50), (9, 120), (44, 30), (70, 71), (40, 60)]  # height, width
MODES = ["RGB", "L", "RGB", "CMYK", "RGB", "RGBA", "P", "RGB"]
FORMAT = {
    "name": "coco_format",
    "folder": "pets",
    "num_classes": 3,
    "short_side": 64,
    "long_side": 96,
    "validation_images": 2,
}


AUGMENT = {
    "horizontal_flip": 0.5,
    "short_sides": [40, 48, 64],
    "crop": 0.5,
    "crop_short_sides": [50, 60],
    "crop_sides": [30, 45],
}


def create(root: Path, *, augment: Any = AUGMENT, batch_size: int = 2, **options: Any) -> Any:
    config = FORMAT | options.pop("config", {})
    return data.create(
        config,
        seed=0,
        batch_size=batch_size,
        augment=augment,
        data_root=root,
        annotation=INSTANCES,
        **options,
    )


def rectangle(left: float, top: float, width: float, height: float) -> list[float]:
    right, bottom = left + width, top + height
    return [left, top, right, top, right, bottom, left, bottom]


def run_lengths(box: tuple[int, int, int, int], height: int, width: int, *, compressed: bool) -> Any:
    pixels = np.zeros((height, width), np.uint8)
    left, top, wide, high = box
    pixels[top : top + high, left : left + wide] = 1
    if compressed:
        found = mask.encode(np.asfortranarray(pixels))
        return {"size": [height, width], "counts": found["counts"].decode()}
    columns = pixels.T.ravel()
    changes = np.flatnonzero(np.diff(np.concatenate([[0], columns])))
    counts = np.diff(np.concatenate([[0], changes, [len(columns)]]))
    return {"size": [height, width], "counts": counts.tolist()}


def annotation(number: int, image: int, box: tuple, outline: Any, category: int = 3, crowd: int = 0) -> dict:
    area = float(box[2] * box[3])
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": list(box),
        "area": area,
        "iscrowd": crowd,
        "segmentation": outline,
    }


def content(split: str) -> dict[str, Any]:
    """Eight images; the last but one has no annotation, and the fourth a crowd alone."""
    images, annotations = [], []
    for at, (height, width) in enumerate(SIZES):
        number = 100 - 3 * at  # ids that descend and have gaps
        name = f"{split}{at}.{'png' if MODES[at] in ('RGBA', 'P') else 'jpg'}"
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        if at == 6:
            continue
        box = (4, 2, width // 2, height // 2)
        if at == 3:
            outline = run_lengths(box, height, width, compressed=False)
            annotations.append(annotation(10 * at + 1, number, box, outline, crowd=1))
            continue
        annotations.append(annotation(10 * at + 1, number, box, [rectangle(*box)], category=7))
        small = (width - 9, height - 8, 7, 5)
        runs = run_lengths(small, height, width, compressed=at % 2 == 0)
        annotations.append(annotation(10 * at + 2, number, small, runs, category=90))
        beyond = (width - 12, -4, 20, 14)  # a polygon that leaves the image
        annotations.append(annotation(10 * at + 3, number, beyond, [rectangle(*beyond)]))
        flat = (5, 5, 8, 0)  # no area
        annotations.append(annotation(10 * at + 4, number, flat, [rectangle(*flat)]))
    return {"info": {}, "images": images, "annotations": annotations[::-1], "categories": CATEGORIES}


def write(root: Path, splits: tuple[str, ...] = ("train", "val")) -> Path:
    """Write `pets/` with images of several modes; JPEG's grey and CMYK, PNG's palette and transparency."""
    pixels = np.random.RandomState(0)
    folder = root / "pets"
    (folder / "annotations").mkdir(parents=True)
    for split in splits:
        described = content(split)
        save(folder, split, described)
        (folder / split).mkdir()
        for one, (height, width), mode in zip(described["images"], SIZES, MODES, strict=True):
            image = Image.fromarray(pixels.randint(0, 256, (height, width, 3), np.uint8)).convert(mode)
            image.save(folder / split / one["file_name"])
    return root


def file_of(folder: Path, split: str) -> Path:
    return folder / "annotations" / f"instances_{split}.json"


def save(folder: Path, split: str, described: Any) -> None:
    file_of(folder, split).write_text(json.dumps(described))


def load(folder: Path, split: str) -> Any:
    return copy.deepcopy(json.loads(file_of(folder, split).read_text()))
