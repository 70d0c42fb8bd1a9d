"""Operators of few channels for small maps, and how they are filled: what all tests of operators share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ablate import ops
from ablate.testing.subject import drawn

__all__ = ["EXCEPTIONS", "FORMS", "OWN", "PRESETS", "WIDTHS", "build", "close", "drawn", "image", "small"]

EXCEPTIONS: dict[str, dict[str, Any]] = {
    "lsa": {"region": {"size": 3}},
    "lesa_window": {"window": 3},
    "aggregated": {"reduction": "L/2"},
    "plg": {"window": 3, "tokens": 3},
    "rasa": {"reduction": "L/2"},
    "dcnv3": {"heads": "C/4"},
    "contmix": {"kernel": 5, "small_kernel": 3, "pooled": 2},
    "dilated_reparam": {"kernel": 7},
    "involution": {"channel": {"heads": "C/4"}, "region": {"kernel": 3}},
    "ls_conv": {"channel": {"heads": "C/4"}, "region": {"kernel": 3}, "weights": {"kernel": 3}},
    "qna": {"channel": {"heads": "C/4"}, "region": {"kernel": 3}},
    "i_d_dwconv": {"channel": {"heads": "C/4"}, "region": {"kernel": 3}},
}
FORMS = [(name, stride) for name in ops.names() for stride in ops.spec(name).strides]
WIDTHS = {"dcnv4": 32}  # channels of an entry that does not take 8
PRESETS = [name for name in ops.names() if ops.spec(name).config is not None]
OWN = [name for name in ops.names() if ops.spec(name).config is None]


def small(name: str) -> dict[str, Any]:
    """Overrides for `ops.create` on maps from 3×3 on, 4 · n channels and 2 heads."""
    if name in EXCEPTIONS:
        return EXCEPTIONS[name]
    defaults = ops.spec(name).defaults
    if "region" in defaults:
        return {"region": {"kernel": 3}}
    return {"kernel": 3} if "kernel" in defaults else {}


def build(
    name: str,
    dim: int | None = None,
    *,
    host_heads: int = 2,
    resolution: tuple[int, int] | None = (5, 7),
    stride: int = 1,
    index: int = 0,
    seed: int = 0,
    **overrides: Any,
) -> nn.Module:
    """The entry with 8 channels and small settings; an override of an axis is added to its small one.

    `host_heads` are those of the host, so that `heads` can be an operator's setting.
    """
    merged = small(name)
    for key, value in overrides.items():
        both = isinstance(value, dict) and "name" not in value and key in merged
        merged = {**merged, key: {**merged[key], **value} if both else value}
    torch.manual_seed(seed)
    return ops.create(
        name,
        dim or WIDTHS.get(name, 8),
        heads=host_heads,
        resolution=resolution,
        stride=stride,
        index=index,
        settings=merged,
    )


def image(
    height: int, width: int, dim: int = 8, batch: int = 2, dtype: torch.dtype = torch.float64
) -> Tensor:
    """(batch, height, width, dim), normally distributed, the same at every call."""
    return torch.randn(batch, height, width, dim, dtype=dtype, generator=torch.Generator().manual_seed(2))


def close(found: Tensor, expected: Tensor) -> None:
    """Equal but for the rounding of float64."""
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
