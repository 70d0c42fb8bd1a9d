"""ResNet hosts: strided slots, LESA's layout, and the batch norm that some operators bring along."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from ablate import hosts, official, ops
from ablate.ops import costs, registry

LESA: dict[str, Any] = {"stages": [3, 4], "strided": "keep", "last_stride": 1}


def test_lesas_layout_is_eight_slots_on_one_map() -> None:
    slots = [placed.slot for placed in hosts.slots("resnet50", **LESA)]
    assert [slot.dim for slot in slots] == [256] * 5 + [512] * 3
    assert {(slot.resolution, slot.stride, slot.heads) for slot in slots} == {((14, 14), 1, 8)}


# Totals of the authors' models with 1000 classes.
@pytest.mark.parametrize(
    ("host", "parameters"), [("resnet50", 23_777_512), ("wide_resnet50", 61_145_896)], ids=str
)
def test_lesa_resnet_has_the_published_number_of_parameters(host: str, parameters: int) -> None:
    with torch.device("meta"):
        assert costs.parameters(hosts.create(host, "lesa", **LESA)) == parameters


def test_an_operator_that_ends_in_a_norm_replaces_the_batch_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    def norms() -> list[type]:
        model = hosts.create("resnet_micro", "dwconv", strided="keep")
        return [type(model.get_submodule(f"{block}.bn2")) for block in ("layer1.0", "layer2.0", "layer2.1")]

    kept = norms()
    assert issubclass(kept[0], nn.BatchNorm2d)
    entry = dataclasses.replace(ops.spec("dwconv"), ends_in_norm=True)
    monkeypatch.setitem(registry._ENTRIES, "dwconv", entry)
    assert norms() == [nn.Identity, kept[1], nn.Identity]


@pytest.mark.parametrize("avg_down", [False, True], ids=["strided shortcut", "pooled shortcut"])
def test_the_last_stage_keeps_the_resolution_if_asked(avg_down: bool) -> None:
    model = hosts.create("resnet_micro", "dwconv", avg_down=avg_down, last_stride=1)
    assert model.forward_features(torch.randn(1, 3, 28, 28)).shape == (1, 128, 14, 14)
    assert [info["reduction"] for info in model.feature_info] == [2, 2, 2]
    strided = hosts.create("resnet_micro", "dwconv", avg_down=avg_down)
    assert strided.forward_features(torch.randn(1, 3, 28, 28)).shape == (1, 128, 7, 7)
    assert [info["reduction"] for info in strided.feature_info] == [2, 2, 4]


@pytest.mark.parametrize(("host", "size"), [("resnet_micro", 28), ("resnet50", 64)])
def test_conv_from_timms_weights_gives_timms_logits(host: str, size: int) -> None:
    torch.manual_seed(0)
    theirs = hosts.create(host, None).eval()
    ours = hosts.create(host, {**ops.spec("conv").defaults, "bias": False}).eval()
    official.load(ours, theirs.state_dict())
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    assert costs.parameters(ours) == costs.parameters(theirs)
