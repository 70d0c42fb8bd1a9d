"""Image files of any folder, prepared as the test images of a data set are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ablate.data.contract import DataInfo, Scale
from ablate.data.decoding import read_image
from ablate.data.listing import FORMATS, files_below
from ablate.errors import UserError

MODES = {1: "L", 3: "RGB"}  # of images with so many channels


def find(place: Path) -> list[str]:
    """Return the image files below a folder, in natural order, or the one file that is named.

    Raises:
        UserError: there is no such place, or no image in it.
    """
    if place.is_file():
        return [str(place)]
    if not place.is_dir():
        raise UserError(f"no folder or image {place}", "give a number of test images, a folder or an image")
    if not (paths := files_below(place)):
        raise UserError(f"{place} holds no images", f"images end in {', '.join(FORMATS)}")
    return paths


def prepare(paths: Sequence[str], info: DataInfo, scale: Scale) -> Tensor:
    """Read image files: (N, C, H, W) float32 of the data set's shape, normalised as its images are.

    The short side is resized, and the centre cut out.

    Raises:
        UserError: a file that cannot be read, or a data set of other images than grey or RGB.
    """
    from timm.data import create_transform

    channels, height, width = info.image_shape
    if channels not in MODES:
        raise UserError(
            f"the data set has {channels} channels, and image files have 1 or 3", "look at its test images"
        )
    mean, std = (tuple(part) * (channels if len(part) == 1 else 1) for part in scale)
    transform = create_transform(
        (channels, height, width), interpolation="bicubic", crop_pct=1.0, mean=mean, std=std
    )
    return torch.stack([transform(read_image(path).convert(MODES[channels])) for path in paths])
