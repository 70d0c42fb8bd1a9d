"""Operators of their own, each written a second time from its formula, tap by tap."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from tests.ops.restated_attention import (
    aggregated,
    contmix,
    csa,
    outlook,
    plg,
    rasa,
    san_pairwise,
    san_patchwise,
    sasa,
    slide,
)
from tests.ops.restated_filters import (
    attn_conv,
    carafe,
    condconv,
    conv,
    dcnv3,
    dcnv4,
    ddf,
    dilated_reparam,
    dynamic_conv,
    focal,
    manhattan,
)
from tests.ops.restated_lesa import lesa, lesa_window
from tests.ops.small import OWN, WIDTHS, build, close, drawn, image, small
from torch import Tensor

from ablate import ops

LESA = [{"fusion": "sum"}, {"fusion": "static"}, {"unary": "none"}, {"binary": "none"}, {"heads": "1"}]
# Every operator of its own: its restatement, and the settings beside its defaults to compare it at.
RESTATED: dict[str, tuple[Callable[..., Tensor], list[dict[str, object]]]] = {
    "aggregated": (aggregated, [{"reduction": 1, "heads": "C"}, {"kernel": 5, "reduction": 3}]),
    "attn_conv": (
        attn_conv,
        [{"branches": "attn_conv", "kernel": 5}, {"branches": "pooled", "grid": 2}, {"grid": 1}],
    ),
    "carafe": (carafe, [{"heads": "1x", "kernel": 5}, {"encoder_kernel": 1, "compressed": 3}]),
    "condconv": (condconv, [{"groups": "1x", "experts": 3, "bias": False}]),
    "contmix": (contmix, [{"pooled": 3, "small_kernel": 5}, {"kernel": 7, "heads": "1"}]),
    "conv": (conv, [{"groups": "1x", "kernel": 5}, {"groups": "C", "bias": False}]),
    "csa": (csa, [{"grid": 1}, {"heads": "C", "kernel": 5, "grid": 3}]),
    "ddf": (ddf, [{"combination": "add", "heads": "1x"}, {"heads": "C", "kernel": 5}]),
    "dcnv3": (dcnv3, [{"centre_scale": True, "feature_kernel": 5}, {"kernel": 5, "offset_scale": 0.6}]),
    "dcnv4": (dcnv4, [{"depthwise": True, "centre_scale": True}, {"bias": True, "offset_scale": 2.0}]),
    "dilated_reparam": (dilated_reparam, [{"kernel": 5}, {"kernel": 3, "branches": "none"}]),
    "dynamic_conv": (dynamic_conv, [{"temperature": 0.7, "squeeze": 0.5, "groups": "C"}]),
    "focal": (focal, [{"levels": 3, "divide": True}, {"levels": 1, "growth": 4, "kernel": 5, "norm": True}]),
    "lesa": (lesa, [{"positions": "two_dimensional"}, {"positions": "decomposed"}, *LESA]),
    "lesa_qr": (lesa, [{"positions": "flattened"}, {"fusion": "sum"}]),
    "lesa_window": (lesa_window, [{"shift": "none"}, {"window": 4}, *LESA]),
    "manhattan": (
        manhattan,
        [
            {"decomposed": False, "decay_range": 6.0},
            {"rotation": False, "decay_initial": 1.0},
        ],
    ),
    "outlook": (outlook, [{"value_bias": True, "grid": 1}, {"heads": "C", "kernel": 5, "grid": 3}]),
    "plg": (plg, [{"window": 4, "tokens": 2}, {"heads": "C", "tokens": 9}]),
    "rasa": (rasa, [{"reduction": 1, "depth": 3, "heads": "C"}, {"depth": 1, "rates": [2], "kernel": 5}]),
    "san_pairwise": (san_pairwise, [{"share": 2, "reduction": 1}, {"share": 1, "kernel": 5}]),
    "san_patchwise": (san_patchwise, [{"share": 2, "reduction": 1}, {"share": 1, "kernel": 5}]),
    "sasa": (sasa, [{"border": "mask", "dilation": 2}, {"border": "inside"}, {"kernel": 5}]),
    "slide": (slide, [{"heads": "1", "kernel": 5}]),
}
CASES = [
    pytest.param(name, settings, id=" ".join([name, *(f"{key}={value}" for key, value in settings.items())]))
    for name, (_, variants) in RESTATED.items()
    for settings in [{}, *variants]
]


def test_every_operator_of_its_own_is_restated() -> None:
    assert sorted(RESTATED) == OWN


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_is_its_formula(name: str, settings: dict[str, object]) -> None:
    restatement, _ = RESTATED[name]
    chosen = {**ops.spec(name).defaults, **small(name), **settings}
    for size in ((5, 7), (4, 4)):
        x = image(*size, dim=WIDTHS.get(name, 8))
        for stride in ops.spec(name).strides:
            operator = drawn(build(name, resolution=size, stride=stride, index=1, **settings))
            given = SimpleNamespace(**{**chosen, "stride": stride, "index": 1})
            for training in (True, False):
                close(operator.train(training)(x), restatement(operator, x, given))
