"""ConvNeXt hosts (Liu et al., 2022): timm's class, slot = a block's 7×7 depthwise convolution.

ConvNeXt has no heads: `1x` means one for every 32 channels, as in Swin.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import timm
from timm.models.convnext import ConvNeXt
from torch import nn

from ablate.hosts.slots import ChannelsFirst, HostSpec, PlacedSlot
from ablate.ops import Slot
from ablate.ops.registry import OperatorSpec

HEAD_WIDTH = 32


def slots(model: nn.Module, images: tuple[int, int]) -> Iterator[PlacedSlot]:
    """Every block's depthwise convolution; stages halve the map between their blocks."""
    assert isinstance(model, ConvNeXt)
    for stage, info in enumerate(model.feature_info):
        resolution = (images[0] // info["reduction"], images[1] // info["reduction"])
        for index, block in enumerate(model.stages[stage].blocks):
            dim = block.conv_dw.in_channels
            slot = Slot(dim, max(1, dim // HEAD_WIDTH), resolution, index=index)
            yield PlacedSlot(slot, stage + 1, f"stages.{stage}.blocks.{index}.conv_dw")


def fill(model: nn.Module, placed: PlacedSlot, operator: nn.Module, entry: OperatorSpec) -> None:
    """The operator for the convolution."""
    model.set_submodule(placed.path, ChannelsFirst(operator))


def _tiny(img_size: Any = None, **kwargs: Any) -> nn.Module:
    return timm.create_model("convnext_tiny", pretrained=False, **kwargs)


def _micro(img_size: Any = None, **kwargs: Any) -> nn.Module:
    """Four stages of 16 to 64 channels; the stem keeps the resolution.

    Without layer scale: it lets deep networks begin as the identity, and would hide the operators of
    this one for most of a short training.
    """
    settings = {"depths": (1, 2, 1, 1), "dims": (16, 32, 64, 64), "patch_size": 1, "ls_init_value": None}
    return ConvNeXt(**{**settings, **kwargs})


def specs() -> list[HostSpec]:
    """The ConvNeXt hosts."""
    tiny = HostSpec(
        name="convnext_tiny",
        build=_tiny,
        slots=slots,
        fill=fill,
        stages=4,
        image_size=(224, 224),
        smallest=32,
        channels_first=True,
    )
    micro = HostSpec(
        name="convnext_micro",
        build=_micro,
        slots=slots,
        fill=fill,
        stages=4,
        image_size=(28, 28),
        smallest=8,
        channels_first=True,
    )
    return [tiny, micro]
