"""Maps that windows do not tile: rolled, then filled up as in timm, or filled up first as in mmdetection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.tasks.configured import configure
from torch import Tensor, nn

from ablate import hosts, official, ops
from ablate.errors import UserError
from ablate.ops import configs
from ablate.ops.slot import SHIFT_ORDERS
from ablate.store.identity import signature

SIZE = 7
MICRO: dict[str, Any] = {"in_chans": 1, "num_classes": 10, "depths": (2, 2), "img_size": (50, 76)}
FIRST = {"shift_order": "pad_then_roll"}
WINDOWED: dict[str, dict[str, Any]] = {
    "lsa": {},
    "lesa_window": {},
    "elsa_equation": {"region": {"name": "window", "size": SIZE, "shift": "alternate"}},
    "dwconv": {"region": {"name": "window", "size": SIZE, "shift": "alternate"}},
}


def mmdetection(x: Tensor, attention: Callable[..., Tensor], shift: int) -> Tensor:
    """mmdetection's ShiftWindowMSA, written again: (B, H, W, C) → (B, H, W, C)."""
    batch, height, width, channels = x.shape
    x = F.pad(x, (0, 0, 0, (SIZE - width % SIZE) % SIZE, 0, (SIZE - height % SIZE) % SIZE))
    rows, columns = x.shape[1:3]
    mask = None
    if shift:
        x = torch.roll(x, (-shift, -shift), (1, 2))
        number = torch.zeros(rows, columns)
        parts = (slice(0, -SIZE), slice(-SIZE, -shift), slice(-shift, None))
        for i, down in enumerate(parts):
            for j, across in enumerate(parts):
                number[down, across] = 3 * i + j
        flat = cut(number[None, :, :, None]).squeeze(-1)  # (windows, SIZE²)
        mask = torch.where(flat[:, None] == flat[:, :, None], 0.0, -100.0)
    y = attention(cut(x), mask=mask)
    y = y.view(batch, rows // SIZE, columns // SIZE, SIZE, SIZE, channels)
    y = y.permute(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, channels)
    return torch.roll(y, (shift, shift), (1, 2))[:, :height, :width]


def cut(x: Tensor) -> Tensor:
    """Windows of a map (B, H, W, C): (B · windows, SIZE², C)."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // SIZE, SIZE, width // SIZE, SIZE, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, SIZE**2, channels)


def loud(model: nn.Module) -> nn.Module:
    """Weights far from zero, position biases too."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.1)
    return model.eval()


@torch.no_grad()
def test_blocks_are_mmdetections() -> None:
    theirs = loud(hosts.create("swin_micro", None, **MICRO, **FIRST, strict_img_size=False))
    for size in ((25, 38), (SIZE, SIZE), (SIZE, 9)):
        x = torch.randn(2, *size, 32)
        for index, block in enumerate(theirs.layers[0].blocks):
            expected = mmdetection(x, block.attn, SIZE // 2 * index)
            torch.testing.assert_close(block._attn(x), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("size", [(50, 76), (28, 28)])  # of the second: maps of 14×14 and of one window
def test_lsa_is_timms_attention_in_either_order(size: tuple[int, int]) -> None:
    settings = {**MICRO, "img_size": size}
    theirs = loud(hosts.create("swin_micro", None, **settings, **FIRST))
    ours = hosts.create("swin_micro", "lsa", **settings, **FIRST).eval()
    official.load(ours, theirs.state_dict())
    images = torch.randn(2, 1, *size)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5)
    timms = hosts.create("swin_micro", "lsa", **settings).eval()
    timms.load_state_dict(ours.state_dict())
    assert (timms(images) - ours(images)).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("name", WINDOWED)
def test_every_operator_of_windows_computes_on_the_filled_map(name: str) -> None:
    config = configs.override(ops.spec(name).defaults, WINDOWED[name])
    pair = [ops.from_config(config, ops.Slot(32, 4, index=1, shift_order=one)) for one in SHIFT_ORDERS]
    rolls_first, pads_first = (loud(operator) for operator in pair)
    pads_first.load_state_dict(rolls_first.state_dict())
    tiled = torch.randn(2, 28, 42, 32)
    assert torch.equal(pads_first(tiled), rolls_first(tiled))
    x = tiled[:, :25, :38]
    filled = F.pad(x, (0, 0, 0, 4, 0, 3))
    torch.testing.assert_close(pads_first(x), rolls_first(filled)[:, :25, :38])
    assert (pads_first(x) - rolls_first(x)).abs().max() > 1e-3


@torch.no_grad()
def test_a_host_whose_maps_windows_tile_gives_the_same_bits() -> None:
    size = {**MICRO, "img_size": (56, 84)}
    pair = [loud(hosts.create("swin_micro", "lsa", stages=[1], **size, shift_order=o)) for o in SHIFT_ORDERS]
    pair[1].load_state_dict(pair[0].state_dict())
    images = torch.randn(2, 1, 56, 84)
    assert torch.equal(*(model(images) for model in pair))


def test_the_default_is_left_out_of_the_identity_and_other_values_are_refused() -> None:
    plain = signature(configure())
    assert signature(configure("+host.shift_order=roll_then_pad")) == plain
    assert signature(configure("+host.shift_order=pad_then_roll")) != plain
    with pytest.raises(UserError, match="did you mean 'pad_then_roll'"):
        hosts.check("swin_tiny", ops.spec("lsa").defaults, shift_order="pad_then_rol")
    for host in ("resnet50", "convnext_micro", "volo_micro"):
        with pytest.raises(UserError, match=r"no shifted windows of its own\n.*use a Swin host"):
            hosts.check(host, ops.spec("lsa").defaults, **FIRST)
