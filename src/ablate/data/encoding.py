"""Masks in COCO's run-length encoding."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def encoded(masks: NDArray[np.generic]) -> list[dict[str, Any]]:
    """Encode masks (n, H, W), true or 1 inside, by pycocotools: `size` and `counts` of each."""
    from pycocotools import mask

    columns = np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8))
    return list(mask.encode(columns))


def decoded(masks: list[dict[str, Any]] | None, size: tuple[int, int]) -> NDArray[np.bool_] | None:
    """Decode masks of images of `size` (height, width) to (n, H, W); None stays None."""
    from pycocotools import mask

    if masks is None:
        return None
    if not masks:
        return np.zeros((0, *size), dtype=bool)
    found: NDArray[np.bool_] = mask.decode(masks).transpose(2, 0, 1).astype(bool)
    return found
