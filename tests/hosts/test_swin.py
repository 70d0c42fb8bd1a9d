"""Swin hosts: timm's attention is an entry of the zoo, and blocks are rebuilt around an operator."""

from __future__ import annotations

import pytest
import torch

from ablate import hosts, official, ops
from ablate.errors import UserError
from ablate.ops import costs

MICRO = {"in_chans": 1, "num_classes": 10}


@pytest.mark.parametrize(
    ("name", "size", "settings"),
    [("swin_micro", 28, MICRO), ("swin_micro", 36, {**MICRO, "img_size": 36}), ("swin_tiny", 224, {})],
    ids=["micro", "micro on a map that windows do not tile", "tiny"],
)
def test_lsa_from_timms_weights_gives_timms_logits(name: str, size: int, settings: dict) -> None:
    torch.manual_seed(0)
    theirs = hosts.create(name, None, **settings).eval()
    for parameter in theirs.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.05)  # bias tables far from zero
    ours = hosts.create(name, "lsa", **settings).eval()
    official.load(ours, theirs.state_dict())
    x = torch.randn(2, settings.get("in_chans", 3), size, size)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    assert costs.parameters(ours) == costs.parameters(theirs)


def test_weights_that_do_not_fit_are_named() -> None:
    theirs = hosts.create("swin_micro", None, **MICRO).state_dict()
    with pytest.raises(UserError, match=r"missing: layers\.0\.blocks\.0\.attn\.output\.bias"):
        official.load(hosts.create("swin_micro", "dynamic_filter", **MICRO), theirs)


# Totals of the authors' models with 1000 classes: ELSA in stages 1 to 3, kernel 7, λ=0, γ=1.
@pytest.mark.parametrize(
    ("variant", "group_width", "parameters"),
    [("tiny", 4, 29_140_978), ("small", 8, 52_874_626), ("base", 8, 92_682_464)],
)
def test_elsa_swin_has_the_published_number_of_parameters(
    variant: str, group_width: int, parameters: int
) -> None:
    defaults = ops.spec("elsa").defaults
    op = {**defaults, "weights": {**defaults["weights"], "group_width": group_width}}
    with torch.device("meta"):
        model = hosts.create(f"swin_{variant}", op, stages=[1, 2, 3])
    assert costs.parameters(model) == parameters


@pytest.mark.parametrize("how", ["strict_img_size", "set_input_size"])
def test_another_image_size_runs_after_building_where_the_operator_can(how: str) -> None:
    x = torch.randn(1, 1, 20, 44)
    flexible = {"strict_img_size": False} if how == "strict_img_size" else {}

    def logits(op: dict) -> torch.Tensor:
        model = hosts.create("swin_micro", op, **MICRO, **flexible)
        if not flexible:
            model.set_input_size((20, 44))
        return model(x)

    assert logits(ops.spec("elsa").defaults).shape == (1, 10)
    with pytest.raises(UserError, match="built for a map of 14×14, this one is 10×22"):
        logits({**ops.spec("lsa").defaults, "region": {"name": "global"}})
