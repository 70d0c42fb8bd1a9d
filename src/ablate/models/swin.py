"""Swin Transformers with another operator instead of window attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from ablate import hosts
from ablate.models.hybrid import Hybrid, operator

VARIANTS = ("tiny", "small", "base")
FEATURES = {"flatten_sequential": True, "out_indices": (0, 1, 2, 3)}  # as timm reads its Swin

ELSA = (
    "ELSA-{variant} (Zhou et al., 2021): ELSA with a 7×7 neighborhood, λ=0, γ=1 in stages 1 to 3, as in the "
    "authors' code; stage 4 keeps window attention, there one window, whose "
    "bias table is not weight-decayed here. Group width 4 in tiny, else 8."
)
NA = (
    "Swin-{variant} with neighborhood attention (NAT, Hassani et al., 2023) of 7×7 in every stage, without "
    "dilation."
)
SLIDE = (
    "Slide-Swin-{variant} (Pan et al., 2023) as released: slide attention of 3×3 in stages 1 and 2, "
    "attention over the whole map in stages 3 and 4 (the authors' window of 56)."
)


def hybrids() -> list[Hybrid]:
    """ELSA-Swin, NA-Swin and Slide-Swin in three sizes."""
    return [hybrid for variant in VARIANTS for hybrid in _sizes(variant)]


def like(variant: str) -> str:
    """timm's name for a size of Swin."""
    return f"swin_{variant}_patch4_window7_224"


def _sizes(variant: str) -> list[Hybrid]:
    width = 4 if variant == "tiny" else 8
    builders = {
        "elsa_swin": (partial(_swin, variant, "elsa", {"weights": {"group_width": width}}, (1, 2, 3)), ELSA),
        "na_swin": (partial(_swin, variant, "na", {}, None), NA),
        "slide_swin": (partial(_slide, variant), SLIDE),
    }
    return [
        Hybrid(f"{family}_{variant}", like(variant), build, about.format(variant=variant), FEATURES)
        for family, (build, about) in builders.items()
    ]


def _swin(
    variant: str,
    name: str,
    overrides: dict[str, Any],
    stages: Sequence[int] | None,
    op: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> nn.Module:
    return hosts.create(f"swin_{variant}", operator(name, overrides, op), stages=stages, **kwargs)


def _slide(variant: str, img_size: int | tuple[int, int] = 224, **kwargs: Any) -> nn.Module:
    """The windows of the unfilled stages are as large as stage 3's map, and timm cuts them to stage 4's."""
    sides = (img_size, img_size) if isinstance(img_size, int) else img_size
    settings = {"window_size": tuple(-(-side // 16) for side in sides), **kwargs}
    return _swin(variant, "slide", {}, (1, 2), img_size=img_size, **settings)
