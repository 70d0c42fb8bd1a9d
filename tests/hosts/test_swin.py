"""Hosts are timm's own networks but for what stands in their slots."""

from __future__ import annotations

import pytest
import torch

from ablate import costs, hosts, official, ops
from ablate.errors import UserError

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
    with pytest.raises(UserError, match=r"layers\.0\.blocks\.0\.attn\.weights\.expand\.weight"):
        official.load(hosts.create("swin_micro", "dynamic_filter", **MICRO), theirs)


@pytest.mark.parametrize("name", ops.names())
def test_same_seed_gives_the_same_bits_outside_the_slots(name: str) -> None:
    def outside(op: str) -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        state = hosts.create("swin_micro", op, stages=[1], **MICRO).state_dict()
        return {key: value for key, value in state.items() if "layers.0" not in key or ".attn." not in key}

    reference, found = outside("lsa"), outside(name)
    assert reference.keys() == found.keys()
    assert all(torch.equal(reference[key], found[key]) for key in reference)


def test_every_filled_slot_takes_part_in_the_forward_pass() -> None:
    model = hosts.create("swin_micro", "elsa", **MICRO)
    called: list[ops.LocalOperator] = []
    for module in model.modules():
        if isinstance(module, ops.LocalOperator):
            module.register_forward_hook(lambda operator, *_: called.append(operator))
    model(torch.randn(1, 1, 28, 28))
    assert len({id(operator) for operator in called}) == len(called) == 3


@pytest.mark.parametrize(("stages", "count"), [(None, 12), ([1, 2, 3], 10), ([4], 2)])
def test_slots_of_the_stages_asked_for_are_filled(stages: list[int] | None, count: int) -> None:
    with torch.device("meta"):
        model = hosts.create("swin_tiny", "dwconv", stages=stages)
    filled = [module for module in model.modules() if isinstance(module, ops.LocalOperator)]
    assert len(filled) == len(hosts.slots("swin_tiny", stages)) == count


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


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"name": "swin_mirco"}, "did you mean 'swin_micro'"),
        ({"name": "swin_micro", "stages": [0]}, "stages count from 1 to 2"),
        ({"name": "swin_micro", "img_size": 29}, "use for example 28×28"),
        ({"name": "swin_tiny", "img_size": 32, "stages": [1, 2]}, "larger than the map of 4×4"),
    ],
)
def test_refused(arguments: dict, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        hosts.create(
            arguments.pop("name"),
            "lsa",
            **{"img_size": 28, **arguments} if "img_size" in arguments else arguments,
        )


def test_other_image_sizes_run_where_the_operator_can() -> None:
    model = hosts.create("swin_micro", "elsa", stages=[1], img_size=(20, 44), **MICRO)
    assert model(torch.randn(1, 1, 20, 44)).shape == (1, 10)
