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
