"""Deformable convolutions in ResNets and inside of LESA's unary term."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.tasks.configured import configure
from torch import Tensor, nn
from torchvision.ops import DeformConv2d

from ablate import hosts, official, ops
from ablate.errors import UserError
from ablate.ops import costs
from ablate.ops.deformable import DeformableConv2d
from ablate.store.identity import signature

MICRO: dict[str, Any] = {"in_chans": 1, "num_classes": 10}
LESA: dict[str, Any] = {"stages": [3, 4], "strided": "keep", "img_size": 1024}


def definition(layer: DeformableConv2d, x: Tensor) -> Tensor:
    """The sum over taps, each of the map at its own place, linear between positions and zero outside."""
    offsets, (stride, _), groups = layer.conv_offset(x), layer.stride, layer.groups
    height, width = x.shape[2:]
    row = torch.arange(0, height, stride, dtype=x.dtype)[:, None]
    column = torch.arange(0, width, stride, dtype=x.dtype)[None]
    y = torch.zeros(())
    for tap in range(9):
        down = row + tap // 3 - 1 + offsets[:, 2 * tap]
        across = column + tap % 3 - 1 + offsets[:, 2 * tap + 1]
        grid = torch.stack([2 * across / (width - 1) - 1, 2 * down / (height - 1) - 1], -1)
        moved = F.grid_sample(x, grid, align_corners=True)
        y = y + F.conv2d(moved, layer.weight[:, :, tap // 3, tap % 3][..., None, None], groups=groups)
    return y


@pytest.mark.parametrize("stride", [1, 2])
def test_taps_are_moved_by_the_offsets(stride: int) -> None:
    torch.manual_seed(0)
    layer = DeformableConv2d(8, 12, 3, stride, 4, bias=False).double()
    x = torch.randn(2, 8, 9, 12, dtype=torch.float64, requires_grad=True)
    plain = F.conv2d(x, layer.weight, stride=stride, padding=1, groups=4)
    torch.testing.assert_close(layer(x), plain)
    nn.init.normal_(layer.conv_offset.weight, std=0.3)
    found, expected = layer(x), definition(layer, x)
    torch.testing.assert_close(found, expected)
    given = (x, layer.weight, layer.conv_offset.weight)
    mine, theirs = (torch.autograd.grad(y.square().sum(), given) for y in (found, expected))
    torch.testing.assert_close(mine, theirs)


def test_a_host_begins_as_without_and_its_pairs_stay_pairs() -> None:
    built = []
    for stages in (None, [1, 2]):
        torch.manual_seed(0)
        built.append(hosts.create("resnet_micro", None, **MICRO, deformable=stages).eval())
    plain, moved = built
    offsets = {name: value for name, value in moved.state_dict().items() if ".conv_offset." in name}
    assert len(offsets) == 2 * 3
    assert not any(value.any() for value in offsets.values())
    moved.load_state_dict({**plain.state_dict(), **offsets})
    x = torch.randn(2, 1, 28, 28)
    torch.testing.assert_close(moved(x), plain(x), rtol=1e-5, atol=1e-5)
    states = []
    for op in ("dwconv", "conv"):
        torch.manual_seed(0)
        states.append(hosts.create("resnet_micro", op, stages=[2], deformable=[1, 2], **MICRO).state_dict())
    outside = [name for name in states[0] if "layer2" not in name or ".conv2." not in name]
    assert any(".conv_offset." in name for name in outside)
    assert all(torch.equal(states[0][name], states[1][name]) for name in outside)


def test_lesas_published_layout_deforms_every_3x3_convolution_of_c3_to_c5() -> None:
    with torch.device("meta"):
        plain = hosts.create("resnet50", "lesa_qr", **LESA)
        model = hosts.create("resnet50", "lesa_qr", **LESA, deformable=[2, 3, 4])
    found = {name: module for name, module in model.named_modules() if isinstance(module, DeformableConv2d)}
    kept = ["layer2.0", "layer2.1", "layer2.2", "layer2.3", "layer3.0", "layer4.0"]
    inside = [f"layer3.{block}" for block in range(1, 6)] + ["layer4.1", "layer4.2"]
    operators = [f"{block}.conv2.operator.unary.spatial" for block in inside]
    assert sorted(found) == sorted([f"{block}.conv2" for block in kept] + operators)
    extra = 0
    for layer in found.values():
        channels = layer.in_channels
        theirs = DeformConv2d(channels, channels, 3, padding=1, groups=layer.groups, bias=False)
        offsets = 18 * (9 * channels + 1)
        assert costs.parameters(layer) == costs.parameters(theirs) + offsets
        extra += offsets
    assert costs.parameters(model) == costs.parameters(plain) + extra


def test_other_convolutions_of_a_slot_and_their_operations() -> None:
    settings = {**MICRO, "strided": "fill"}
    plain, moved = (
        hosts.create("resnet_micro", "conv", **settings, deformable=stages) for stages in ([], [1, 2])
    )
    layers = [module for module in moved.modules() if isinstance(module, DeformableConv2d)]
    assert len(layers) == 3
    sides = (14, 7, 7)
    more = sum(18 * 9 * layer.in_channels * side**2 for layer, side in zip(layers, sides, strict=True))
    assert costs.macs(moved, 1, 1, 28, 28) == costs.macs(plain, 1, 1, 28, 28) + more
    without = hosts.create("resnet_micro", "dwconv", **settings, deformable=[1, 2])
    assert not any(isinstance(module, DeformableConv2d) for module in without.modules())


@pytest.mark.parametrize("op", ["conv", "lesa"])
def test_it_trains_under_autocast_and_its_offsets_learn(op: str) -> None:
    torch.manual_seed(0)
    model = hosts.create("resnet_micro", op, **MICRO, stages=[1], deformable=[1, 2], zero_init_last=False)
    with torch.autocast("cpu", torch.bfloat16):
        y = model(torch.randn(2, 1, 28, 28))
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    learned = [value.grad for name, value in model.named_parameters() if ".conv_offset." in name]
    assert len(learned) == 6
    assert all(gradient is not None and gradient.isfinite().all() for gradient in learned)
    assert any(gradient.any() for gradient in learned)


def test_offsets_of_mmcv_have_a_place_in_a_host_and_in_lesa() -> None:
    model = hosts.create("resnet_micro", "lesa", **MICRO, stages=[1], deformable=[1, 2])
    own = model.state_dict()
    unary = "layer1.0.conv2.operator.unary.spatial"
    theirs = {
        "layer1.0.conv2.x_transform.0.conv_offset.bias": f"{unary}.conv_offset.bias",
        "layer2.0.conv2.conv_offset.weight": "layer2.0.conv2.conv_offset.weight",
    }
    given = {name: torch.randn(own[ours].shape) for name, ours in theirs.items()}
    converted = official.convert(model, given)
    assert converted.keys() == set(theirs.values())
    assert all(torch.equal(converted[ours], given[name]) for name, ours in theirs.items())


def test_the_default_is_left_out_of_the_identity_and_other_values_are_refused() -> None:
    host = "host=resnet_micro"
    plain = signature(configure(host))
    assert signature(configure(host, "+host.deformable=null")) == plain
    assert signature(configure(host, "+host.deformable=[]")) == plain
    assert signature(configure(host, "+host.deformable=[1]")) != plain
    op = ops.spec("conv").defaults
    with pytest.raises(UserError, match=r"host\.deformable=\[3\]: resnet_micro has no slot in 3\n.*1 to 2"):
        hosts.check("resnet_micro", op, deformable=[3])
    with pytest.raises(UserError, match=r"write host\.deformable=\[2\]"):
        hosts.check("resnet_micro", op, deformable=2)
    with pytest.raises(UserError, match=r"swin_micro has no convolutions.*\n.*use a ResNet host"):
        hosts.check("swin_micro", op, deformable=[1])
