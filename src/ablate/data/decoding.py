"""An image file as an RGB image, with every fault named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from PIL import Image

from ablate.data.contract import Samples
from ablate.errors import UserError

ORIENTATION = 0x0112  # tag of EXIF; from 5 on, viewers exchange height and width
Item = TypeVar("Item")


def read_image(path: str, *, reduced: bool = False, size: tuple[int, int] | None = None) -> Image.Image:
    """Decode an image file into 8-bit RGB.

    Of 16-bit grey the high byte is used, as Pillow does for 16-bit colour. Transparency is dropped. An
    orientation in EXIF is ignored: pixels are as they are stored.

    Args:
        path: the file.
        reduced: decode the whole file, but a JPEG at an eighth of its size, which is faster.
        size: (height, width) that annotations give the image.

    Raises:
        UserError: the file is damaged, is not an image, is too large for Pillow's limit, has pixels of
            which white is unknown, or is not of that size.
    """
    try:
        with Image.open(path) as file:
            if size is not None and file.size[::-1] != size:
                raise _other_size(path, file, size)
            if reduced:
                file.draft(None, (1, 1))
            return eight_bit(file).convert("RGB")
    except UserError:
        raise
    except Exception as error:  # damaged files raise OSError, SyntaxError, struct.error, zlib.error, …
        raise UserError(f"cannot read the image {path}: {error}", "restore or remove the file") from error


def eight_bit(image: Image.Image) -> Image.Image:
    """Scale grey of 16 bits to 8 bits, which `convert` would clip to white.

    Raises:
        ValueError: 32-bit or float pixels of an unknown range.
    """
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if sixteen:
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        kind = "32-bit integers" if image.mode == "I" else "floats"
        raise ValueError(
            f"its pixels are {kind}, and which value is white is unknown; save it with 8 or 16 bits"
        )
    return image


def is_turned(file: Image.Image) -> bool:
    """True if viewers exchange width and height of an image, by its EXIF."""
    return int(file.getexif().get(ORIENTATION, 1)) >= 5


def _other_size(path: str, file: Image.Image, size: tuple[int, int]) -> UserError:
    width, height = file.size
    problem = f"{path} is stored with {width}×{height} pixels, its annotations are for {size[1]}×{size[0]}"
    if (height, width) == size[::-1] and is_turned(file):
        return UserError(
            f"{problem}: they follow the orientation in its EXIF, which is not applied",
            "store the pixels upright, for instance with `mogrify -auto-orient`",
        )
    return UserError(problem, "restore the file that was annotated, or correct width and height")


def check_images(samples: Samples, threads: int) -> None:
    """Decode every image once, so that a damaged one is found before hours of training.

    Raises:
        UserError: the first that cannot be read.
    """
    check_each(lambda sample: read_image(sample[0], reduced=True).size, samples, threads)


def check_each(check: Callable[[Item], object], items: Sequence[Item], threads: int) -> None:
    """Call `check` with every item, in threads; its first error ends it."""
    with ThreadPoolExecutor(max(1, threads)) as pool:
        try:
            for _ in pool.map(check, items):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
