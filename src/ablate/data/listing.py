"""The image files under a folder of class folders."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ablate.data.contract import Samples
from ablate.errors import UserError

FORMATS = (  # endings; of an animation the first frame is read
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".avif"),
)


def class_folders(folder: Path) -> list[str]:
    """Names of the folders in `folder`; hidden ones (`.git`, `.ipynb_checkpoints`) are not classes."""
    return [entry.name for entry in folder.iterdir() if entry.is_dir() and not _hidden(entry.name)]


def list_images(folder: Path) -> Samples:
    """Find the image files of every class, however deep they are in its folder.

    Classes are numbered, and images listed, in timm's natural order. Files of other kinds are ignored, hidden
    ones included; image formats that are not read cause a warning.

    Raises:
        UserError: an image outside the class folders, a class without images, a link that leads back to a
            folder around it, or something named as an image that is not a regular file.
    """
    from timm.utils.misc import natural_key

    classes = sorted(class_folders(folder), key=natural_key)
    loose = [entry for entry in folder.iterdir() if _is_image(entry.name) and not entry.is_dir()]
    if loose:
        raise UserError(
            f"{len(loose)} images outside the class folders, the first {min(loose)}",
            f"move each into the folder of its class, {folder}/<class>, or remove it",
        )
    others: list[str] = []
    samples: Samples = []
    for label, name in enumerate(classes):
        paths = list(_walk(folder / name, (os.path.realpath(folder / name),), others))
        if not paths:
            raise UserError(f"the class folder {folder / name} holds no images", _expected())
        samples += [(path, label) for path in paths]
    _warn_of_others(folder, others)
    return sorted(samples, key=lambda sample: natural_key(sample[0]))


def files_below(folder: Path) -> list[str]:
    """Find the image files in a folder and its subfolders, in timm's natural order.

    Raises:
        UserError: see `list_images`.
    """
    from timm.utils.misc import natural_key

    others: list[str] = []
    paths = sorted(_walk(folder, (os.path.realpath(folder),), others), key=natural_key)
    _warn_of_others(folder, others)
    return paths


def _warn_of_others(folder: Path, others: list[str]) -> None:
    if others:
        warnings.warn(
            f"{len(others)} images in {folder} are ignored because their format is not read, the first "
            f"{min(others)}; {_expected()}",
            stacklevel=3,
        )


def _walk(folder: Path, around: tuple[str, ...], others: list[str]) -> Iterator[str]:
    """Yield the image files below `folder`, and add images of other formats to `others`.

    `around` are the real paths of `folder` and of all folders around it, up to that of its class.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if _hidden(entry.name):
                continue
            if entry.is_dir():
                inner = os.path.realpath(entry.path) if entry.is_symlink() else f"{around[-1]}/{entry.name}"
                if any(place == inner or place.startswith(f"{inner}/") for place in around):
                    raise UserError(
                        f"the link {entry.path} leads back to {inner}, a folder around it", "remove the link"
                    )
                yield from _walk(Path(entry.path), (*around, inner), others)
            elif _is_image(entry.name):
                if not entry.is_file():
                    raise UserError(f"{entry.path} is {_kind(entry.path)}, not an image file", "remove it")
                yield entry.path
            elif entry.name.lower().endswith(_unread_formats()):
                others.append(entry.path)


def _kind(path: str) -> str:
    return "a pipe, a socket or a device" if Path(path).exists() else "a link that leads nowhere"


def _hidden(name: str) -> bool:
    return name.startswith(".")


def _is_image(name: str) -> bool:
    return name.lower().endswith(FORMATS) and not _hidden(name)


@cache
def _unread_formats() -> tuple[str, ...]:
    """Endings of other formats that Pillow knows, and of common ones that it does not."""
    from PIL import Image

    known = {*Image.registered_extensions(), ".heic", ".heif", ".jxl", ".svg"}
    return tuple(known - {*FORMATS, ".pdf", ".mpg", ".mpeg", ".h5"})


def _expected() -> str:
    return f"images are read from files with an ending of {', '.join(FORMATS)}"
