"""Deprecated name of `ablate.kernels`; to be removed in version 0.3."""

from __future__ import annotations

import warnings
from typing import Any

from ablate import kernels

RENAMED = {"mixed_attention": "slide_attention.attention"}
__all__ = ["aggregate", "attention", "mixed_attention", "scores", "use"]  # noqa: F822


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    target = RENAMED.get(name, name)
    value: Any = kernels
    for part in target.split("."):
        value = getattr(value, part)
    warnings.warn(
        f"ablate.ops.kernels.{name} is now ablate.kernels.{target}", DeprecationWarning, stacklevel=2
    )
    return value
