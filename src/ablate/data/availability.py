"""Availability of data sets on this machine, and the ways to get the others."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ablate.data import fashion_mini, fashion_mnist
from ablate.data.cifar import CIFAR10, CIFAR100
from ablate.data.coco import Coco
from ablate.data.folders import ImageNet
from ablate.data.map_folders import ADE20K
from ablate.data.origin import Origin, default_data_root

ORIGINS: dict[str, Origin] = {
    "fashion_mini": fashion_mini.ORIGIN,
    "fashion_scenes": fashion_mini.ORIGIN,  # composed of its items
    "fashion_mnist": fashion_mnist.ORIGIN,
    "cifar10": CIFAR10.origin,
    "cifar100": CIFAR100.origin,
    "imagenet": ImageNet.ORIGIN,
    "coco": Coco.ORIGIN,
    "ade20k": ADE20K.ORIGIN,
}


class Availability(NamedTuple):
    """One line of `ablate doctor`: where a data set was found, or the ways to get it."""

    name: str
    available: bool
    detail: str


def availability(data_root: Path | None = None) -> list[Availability]:
    """Look for every data set, without reading or importing anything large.

    Args:
        data_root: as for `ablate.data.create`.
    """
    root = data_root or default_data_root()
    rows = [Availability("synthetic", True, "generated")]
    for name, origin in ORIGINS.items():
        found = origin.find(root)
        rows.append(Availability(name, found is not None, str(found or "; or ".join(origin.ways))))
    return [*rows, _image_folders(root), _map_folders(root), _coco_formats(root)]


def _image_folders(root: Path) -> Availability:
    folders = sorted(path.parent.name for path in root.glob("*/train") if (path.parent / "val").is_dir())
    detail = f"in {root}: {', '.join(folders)}" if folders else f"put DIR/train and DIR/val under {root}"
    return Availability("image_folder", bool(folders), detail)


def _map_folders(root: Path) -> Availability:
    folders = sorted(
        path.parents[1].name for path in root.glob("*/labels/train") if (path.parent / "val").is_dir()
    )
    detail = f"in {root}: {', '.join(folders)}" if folders else f"put DIR/images and DIR/labels under {root}"
    return Availability("map_folder", bool(folders), detail)


def _coco_formats(root: Path) -> Availability:
    folders = sorted({path.parent.parent.name for path in root.glob("*/annotations/*.json")})
    detail = f"in {root}: {', '.join(folders)}" if folders else f"put DIR/annotations/*.json under {root}"
    return Availability("coco_format", bool(folders), detail)
