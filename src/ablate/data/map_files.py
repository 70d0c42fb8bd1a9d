"""Label maps in PNG files: pairing them with images, reading them, and naming what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ablate.data.contract import OUTSIDE, MapSamples
from ablate.data.decoding import check_each, is_turned, read_image
from ablate.data.listing import files_below
from ablate.errors import UserError

ONE_NUMBER = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")  # Pillow's modes with one number for each pixel
UNKNOWN = OUTSIDE - 1  # where a label is not that of a class


@dataclass(frozen=True)
class Labels:
    """Meaning of the values in a label map.

    Attributes:
        num_classes: label `offset` is class 0, label `offset + num_classes - 1` the last one.
        offset: smaller labels are no class.
        ignored: a label that is no class either.
    """

    num_classes: int
    offset: int = 0
    ignored: int | None = None

    def classes(self, labels: NDArray[np.integer]) -> NDArray[np.int16]:
        """Return the class of each pixel, `OUTSIDE` where it has none.

        Raises:
            ValueError: a label is not that of a class.
        """
        table = np.arange(2**16) - self.offset  # class of each label; 16 bits are the most that a PNG has
        last = self.offset + self.num_classes - 1
        table[last + 1 :] = UNKNOWN
        table[: self.offset] = OUTSIDE
        if self.ignored is not None:
            table[self.ignored] = OUTSIDE
        found = table.astype(np.int16)[labels.astype(np.uint16, copy=False)]
        if found.size and found.min() == UNKNOWN:
            strange = np.unique(labels[found == UNKNOWN]).tolist()
            more = " …" if len(strange) > 5 else ""
            raise ValueError(
                f"it has the labels {', '.join(map(str, strange[:5]))}{more}, which belong to no class: "
                f"{self.num_classes} classes are the labels {self.offset} to {last}"
                + ("" if self.ignored is None else f", and {self.ignored} is ignored")
            )
        return found


def read_map(path: str, labels: Labels) -> NDArray[np.int16]:
    """Read a label map: (H, W), the class of each pixel, `OUTSIDE` where it has none.

    Raises:
        UserError: the file cannot be read, has colours instead of labels, or unknown labels.
    """
    try:
        with Image.open(path) as file:
            if file.mode not in ONE_NUMBER:
                raise ValueError(
                    f"it has {file.mode} pixels, and a label map needs one number for each pixel: "
                    "a grey or palette image"
                )
            values = np.asarray(file)
    except Exception as error:  # damaged files raise OSError, SyntaxError, struct.error, zlib.error, …
        raise UserError(
            f"cannot read the label map {path}: {error}", "restore or replace the file"
        ) from error
    try:
        return labels.classes(values)
    except ValueError as error:
        raise UserError(
            f"label map {path}: {error}", "correct the map, or the description of its labels in the data set"
        ) from error


def pair(images: Path, maps: Path) -> MapSamples:
    """Return every image below `images` with the label map of the same name below `maps`, in natural order.

    Raises:
        UserError: an image without a map, a map without an image, two images of one name, a map that is not
            a PNG file, or nothing at all.
    """
    by_name: dict[PurePath, str] = {}
    for path in files_below(images):
        name = PurePath(path).relative_to(images).with_suffix("")
        if name in by_name:
            raise UserError(
                f"{by_name[name]} and {path} would have the same label map", "rename or remove one of them"
            )
        by_name[name] = path
    if not by_name:
        raise UserError(
            f"{images} holds no images", "put images there, and their label maps into " + str(maps)
        )
    found: dict[PurePath, str] = {}
    for path in files_below(maps):
        if not path.lower().endswith(".png"):
            raise UserError(
                f"the label map {path} is not a PNG file",
                "save label maps as PNG; a format that compresses with losses changes labels",
            )
        found[PurePath(path).relative_to(maps).with_suffix("")] = path
    if without := [name for name in by_name if name not in found]:
        raise UserError(
            f"{len(without)} of {len(by_name)} images in {images} have no label map, the first "
            f"{by_name[without[0]]}",
            f"add {maps / without[0]}.png, or remove the image",
        )
    if alone := [name for name in found if name not in by_name]:
        raise UserError(
            f"{len(alone)} label maps in {maps} have no image, the first {found[alone[0]]}",
            f"add the image, {images / alone[0]}.jpg or in another format, or remove the map",
        )
    return [(path, found[name]) for name, path in by_name.items()]


def check_pairs(samples: MapSamples, labels: Labels, threads: int, *, decode_images: bool) -> None:
    """Read every label map once, and the size of its image or, with `decode_images`, the whole image.

    Raises:
        UserError: the first pair in which something is wrong.
    """

    def check(sample: tuple[str, str]) -> None:
        path, map_path = sample
        found = read_map(map_path, labels)
        require_one_size(path, map_path, found)
        if decode_images:
            read_image(path, reduced=True)

    check_each(check, samples, threads)


def require_one_size(path: str, map_path: str, found: NDArray[np.int16]) -> None:
    """Refuse a label map of another size than its image as it is stored.

    Raises:
        UserError: with both sizes, and a hint where EXIF's orientation explains them.
    """
    try:
        with Image.open(path) as file:
            width, height = file.size
            turned = is_turned(file)
    except Exception as error:
        raise UserError(f"cannot read the image {path}: {error}", "restore or remove the file") from error
    if found.shape == (height, width):
        return
    way_out = "make the label map for this image, pixel by pixel"
    if turned and found.shape == (width, height):
        way_out = (
            "the image has an EXIF orientation, which is ignored, and pixels are used as they are stored: "
            "store the image turned, or turn the label map back"
        )
    raise UserError(
        f"label map {map_path} has {found.shape[0]}×{found.shape[1]} pixels, and its image {path} "
        f"{height}×{width}",
        way_out,
    )
