"""VOLO with ELSA in its outlookers: a reconstruction, for which no code was published."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from ablate import hosts
from ablate.models.hybrid import Hybrid, operator

SIZES = ("d1", "d2", "d3", "d4", "d5")
ABOUT = (
    "ELSA-VOLO-{size}, our reconstruction: ELSA (Zhou et al., 2021) for the outlook attention of "
    "VOLO-{size}. Its authors report it (D5: 87.2 top-1) and published no code. ELSA has the defaults of "
    "their class, which are not those of their Swin and fit VOLO: kernel 5, λ=1, γ=1, no bias in query, key "
    "and value, MLP ratio 3 as in VOLO; heads are VOLO's. Its parameters and accuracy cannot be compared "
    "with theirs."
)
SETTINGS = {
    "region": {"kernel": 5},
    "channel": {"ghost_lambda": 1, "value": "linear_no_bias"},
    "weights": {"bias": False},
}


def hybrids() -> list[Hybrid]:
    """Five sizes."""
    features = {"out_indices": 3, "feature_cls": "getter"}  # as timm reads its VOLO
    return [
        Hybrid(f"elsa_volo_{size}", f"volo_{size}_224", partial(_build, size), _about(size), features)
        for size in SIZES
    ]


def _about(size: str) -> str:
    return ABOUT.format(size=size.upper())


def _build(size: str, op: Mapping[str, Any] | None = None, **kwargs: Any) -> nn.Module:
    return hosts.create(f"volo_{size}", operator("elsa", SETTINGS, op), **kwargs)
