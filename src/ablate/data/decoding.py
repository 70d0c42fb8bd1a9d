"""An image file as an RGB image, with every fault named."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from ablate.data.contract import Samples
from ablate.errors import UserError


def read_image(path: str, *, reduced: bool = False) -> Image.Image:
    """Decode an image file into 8-bit RGB.

    Of 16-bit grey the high byte is used, as Pillow does for 16-bit colour. Transparency is dropped.

    Args:
        path: the file.
        reduced: decode the whole file, but a JPEG at an eighth of its size, which is faster.

    Raises:
        UserError: the file is damaged, is not an image, is too large for Pillow's limit, or has pixels of
            which white is unknown.
    """
    try:
        with Image.open(path) as file:
            if reduced:
                file.draft(None, (1, 1))
            return eight_bit(file).convert("RGB")
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


def check_images(samples: Samples, threads: int) -> None:
    """Decode every image once, so that a damaged one is found before hours of training.

    Raises:
        UserError: the first that cannot be read.
    """
    with ThreadPoolExecutor(max(1, threads)) as pool:
        try:
            for _ in pool.map(lambda sample: read_image(sample[0], reduced=True).size, samples):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
