"""Augmentation policies of timm (RandAugment, AutoAugment, AugMix, 3-Augment) for image files.

Pillow 13 refuses `ImageOps.posterize(image, 0)`, which timm's policies request at the end of their range of
magnitudes (`rand-m9-mstd0.5-inc1` for 7 of 4,000 images) and where older versions return a black image.
timm's `AugmentOp` keeps its function as an attribute, so the function is replaced in the operations of the
transform that is built here. timm's tables and Pillow, which other code of the process may use, stay as they
are, and every other pixel is timm's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from PIL import Image
from timm.data import auto_augment, create_transform
from torch import Tensor

from ablate.data.augmentation import FolderAugmentation
from ablate.errors import UserError

OPERATION_SETS = ("tweights", "t3a", "t3aw")  # of RandAugment
Transform = Callable[[Image.Image], Tensor]


def training_transform(size: int, augmentation: FolderAugmentation) -> Transform:
    """Build timm's training transform, from an RGB image to a uint8 tensor (3, size, size).

    Raises:
        UserError: timm does not know the policy of `auto_augment`.
    """
    if augmentation.auto_augment is not None:
        check_policy(augmentation.auto_augment)
    whole_image = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)}  # the largest square in the centre
    try:
        transform = create_transform(
            size,
            is_training=True,
            interpolation=augmentation.interpolation,
            hflip=augmentation.horizontal_flip,
            color_jitter=augmentation.color_jitter,
            auto_augment=augmentation.auto_augment,
            use_prefetcher=True,
            **({"scale": tuple(augmentation.scale)} if augmentation.scale else whole_image),
        )
    except (AssertionError, ValueError, KeyError) as error:
        problem = f"timm refuses auto_augment {augmentation.auto_augment!r}: {error}"
        raise UserError(problem, "write it as timm does, for instance rand-m9-mstd0.5-inc1") from error
    for operation in operations(transform):
        accept_all_magnitudes(operation)
    return transform


def check_policy(policy: str) -> None:
    """Refuse parts of a policy that timm would ignore without a word.

    Raises:
        UserError: a part without a number, an unknown set of operations, or a magnitude that is clipped.
    """
    given: dict[str, float] = {}
    for part in policy.split("-")[1:]:
        found = re.fullmatch(r"([a-z]+)(\d+\.?\d*)", part)
        if found is not None:
            given[found[1]] = float(found[2])
        elif not (policy.startswith("rand") and part in OPERATION_SETS):
            raise UserError(
                f"auto_augment {policy!r}: {part!r} is neither a setting with a number nor one of "
                f"{', '.join(OPERATION_SETS)}",
                "write it as timm does, for instance rand-m9-mstd0.5-inc1",
            )
    largest = given.get("mmax", 10)
    if given.get("m", 0) > largest:
        raise UserError(
            f"auto_augment {policy!r}: magnitude {given['m']:g} is above the largest, {largest:g}, to which "
            "timm clips it",
            f"use m{largest:g}"
            + (f", or allow it with mmax{given['m']:g}" if policy.startswith("rand") else ""),
        )


def operations(transform: Any) -> Iterator[auto_augment.AugmentOp]:
    """Yield the operations of all policies within a transform."""
    if isinstance(transform, auto_augment.AugmentOp):
        yield transform
    elif isinstance(transform, list | tuple):
        for part in transform:
            yield from operations(part)
    else:  # Compose keeps its parts in `transforms`, RandAugment and AugMix in `ops`, AutoAugment in `policy`
        for attribute in ("transforms", "ops", "policy"):
            yield from operations(getattr(transform, attribute, ()))


def accept_all_magnitudes(operation: auto_augment.AugmentOp) -> None:
    """Replace, in this operation, a function that a version of Pillow refuses for some magnitudes."""
    if operation.aug_fn is auto_augment.posterize:
        operation.aug_fn = posterize


def posterize(image: Image.Image, bits_to_keep: int, **options: Any) -> Image.Image:
    """Reduce every channel to so many bits; a black image for 0 or fewer, as in Pillow 12 and before."""
    if bits_to_keep < 1:
        return Image.new(image.mode, image.size)
    return auto_augment.posterize(image, bits_to_keep, **options)
