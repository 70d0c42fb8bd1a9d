"""Promises of every entry of the registry, by the checks of `ablate.testing`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests.ops.small import FORMS, WIDTHS, build, image, small

from ablate import ops
from ablate.testing import CHECKS, Subject

ONE_PASS = {"dim": 32, "resolution": (5, 6)}  # heads of 16 channels, so that attention is one pass
SIZES: dict[str, dict[str, Any]] = {  # of the slot
    "seed": {"dim": 64, "resolution": (14, 14)},
    "gradcheck": {"dim": 4, "resolution": (3, 4)},
    "autocast": ONE_PASS,
    "checkpointing": ONE_PASS,
    "export": ONE_PASS,
    "compile": ONE_PASS,
    "empty batch": ONE_PASS,
}
NARROW = {  # what else lets an entry do with four channels
    "carafe": {"compressed": 3},
    "ddf": {"squeeze": 0.5},
    "san_pairwise": {"share": 2, "reduction": 2},
    "san_patchwise": {"share": 2, "reduction": 2},
}
OF_STRIDE_1 = ("export", "equivariance", "in its host")
OF_PUBLISHED_SETTINGS = ("in its host", "seed")


def cases() -> Iterator[Any]:
    for check in CHECKS:
        for name, stride in FORMS:
            settings = {} if check in OF_PUBLISHED_SETTINGS else small(name)
            more = NARROW.get(name, {}) if check == "gradcheck" else {}
            size = SIZES.get(check, {"dim": 8, "resolution": (5, 7)})
            size = {**size, "dim": max(size["dim"], WIDTHS.get(name, 0))}
            if check in OF_STRIDE_1 and stride != 1:
                continue
            if check == "compile" and stride != ops.spec(name).strides[-1]:
                continue
            yield pytest.param(
                check,
                Subject(name, {**settings, **more}, stride=stride, **size),
                id=f"{check}-{name}-{stride}",
            )


@pytest.mark.parametrize(("check", "subject"), [*cases()])
def test_every_entry_passes_the_checks_for_operators(check: str, subject: Subject) -> None:
    CHECKS[check](subject)


@pytest.mark.parametrize(("name", "stride"), FORMS)
def test_float64_is_left_as_it_is_under_autocast(name: str, stride: int) -> None:
    """As PyTorch's autocast leaves it in a linear layer."""
    operator = build(name, 32, resolution=(5, 6), stride=stride, index=1).train().double()
    with torch.autocast("cpu", torch.bfloat16):
        assert operator(image(5, 6, dim=32)).dtype == torch.float64
