"""NAT and DiNAT: transformers of neighborhood attention, without or with dilation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from ablate import hosts
from ablate.models.hybrid import Hybrid, operator

SIZES = ("mini", "tiny", "small", "base")
LIKE = "resnet50d"  # evaluated with a crop of 0.875, as NAT by its authors; images of any size
LAYERS = {"first_conv": "patch_embed.proj.0", "classifier": "head"}
FEATURES = {"out_indices": (0, 1, 2, 3), "feature_cls": "getter"}

ABOUT = {
    "nat": "NAT-{size} (Hassani et al., 2023): neighborhood attention of 7×7 in every block.",
    "dinat": (
        "DiNAT-{size} (Hassani & Shi, 2022): NAT-{size} with neighborhood attention that is dilated in every "
        "second block: by 8, 4, 2 and 1 in stages 1 to 4 at 224×224, otherwise by the largest that fits the "
        "maps of img_size. Of the DiNATs only base has layer scale; of the NATs small and base have it."
    ),
}
OPERATORS = {"nat": "na", "dinat": "dinat"}


def hybrids() -> list[Hybrid]:
    """NAT and DiNAT in four sizes."""
    return [
        Hybrid(
            f"{family}_{size}",
            LIKE,
            partial(_build, family, size),
            about.format(size=size),
            FEATURES,
            layers=LAYERS,
        )
        for family, about in ABOUT.items()
        for size in SIZES
    ]


def _build(family: str, size: str, op: Mapping[str, Any] | None = None, **kwargs: Any) -> nn.Module:
    settings = {"layer_scale": None} if (family, size) == ("dinat", "small") else {}
    return hosts.create(f"nat_{size}", operator(OPERATORS[family], op), **{**settings, **kwargs})
