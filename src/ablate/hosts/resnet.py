"""ResNet hosts (He et al., 2016; wide: Zagoruyko & Komodakis, 2016): slot = a bottleneck's 3×3 convolution.

ResNets have no heads: `1x` means 8 as in LESA and SASA, 4 in the micro host, whose channels are few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import timm
from timm.models.resnet import Bottleneck, ResNet
from torch import nn

from ablate.errors import UserError
from ablate.hosts.slots import DEFORMABLE, ChannelsFirst, HostSpec, PlacedSlot
from ablate.ops import Slot
from ablate.ops.deformable import DeformableConv2d, deformed
from ablate.ops.registry import OperatorSpec

HEADS, MICRO_HEADS = 8, 4


def slots(heads: int) -> Callable[[nn.Module, tuple[int, int]], Iterator[PlacedSlot]]:
    """Every bottleneck's 3×3 convolution, with the map that it gets."""

    def found(model: nn.Module, images: tuple[int, int]) -> Iterator[PlacedSlot]:
        assert isinstance(model, ResNet)
        for stage, info in enumerate(model.feature_info[1:], start=1):
            for index, block in enumerate(getattr(model, f"layer{stage}")):
                stride = block.conv2.stride[0]
                pixels = info["reduction"] // stride  # of the image to one of the map, before the stride
                resolution = (-(-images[0] // pixels), -(-images[1] // pixels))
                moved = isinstance(block.conv2, DeformableConv2d)
                slot = Slot(block.conv2.in_channels, heads, resolution, stride, index, deformable=moved)
                yield PlacedSlot(slot, stage, f"layer{stage}.{index}.conv2")

    return found


def fill(model: nn.Module, placed: PlacedSlot, operator: nn.Module, entry: OperatorSpec) -> None:
    """The operator for the convolution; for its batch norm too, if the operator ends in a norm."""
    model.set_submodule(placed.path, ChannelsFirst(operator))
    if entry.ends_in_norm:
        model.set_submodule(placed.path.removesuffix("conv2") + "bn2", nn.Identity())


def _published(variant: str) -> Callable[..., nn.Module]:
    def build(
        img_size: Any = None,
        last_stride: int = 2,
        deformable: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> nn.Module:
        model = timm.create_model(variant, pretrained=False, **kwargs)
        return _with_deformable(_with_last_stride(model, last_stride), deformable or ())

    return build


def _micro(
    img_size: Any = None, last_stride: int = 2, deformable: Sequence[int] | None = None, **kwargs: Any
) -> nn.Module:
    """Two stages: 32 channels at half the resolution, 64 at a quarter.

    timm's class has four stages and a stem that quarters the image: the last two have no block here,
    and the stem no pooling.
    """
    settings = {"layers": (1, 2, 0, 0), "channels": (16, 32, 32, 32), "base_width": 128}
    model = ResNet(Bottleneck, **{**settings, **kwargs})
    model.maxpool = nn.Identity()
    model.feature_info = [{**info, "reduction": info["reduction"] // 2} for info in model.feature_info[:3]]
    model.feature_info[0]["reduction"] = 2
    return _with_deformable(_with_last_stride(model, last_stride), deformable or ())


def _with_deformable(model: ResNet, stages: Sequence[int]) -> ResNet:
    """Make the 3×3 convolutions of some stages deformable; they begin as what they were."""
    for stage in stages:
        for block in getattr(model, f"layer{stage}"):
            block.conv2 = deformed(block.conv2)
    return model


def _with_last_stride(model: ResNet, last_stride: int) -> ResNet:
    """The stride with which the last stage begins: timm's 2, or 1 to keep the resolution (LESA).

    Raises:
        UserError: another stride.
    """
    if last_stride not in (1, 2):
        raise UserError(
            f"host.last_stride={last_stride}: the last stage halves the resolution or keeps it", "use 2 or 1"
        )
    info = model.feature_info[-1]
    first = model.get_submodule(info["module"])[0]
    if last_stride == 1 and first.stride == 2:
        first.stride = 1
        first.conv2.stride = (1, 1)
        for index, layer in enumerate(first.downsample):
            if isinstance(layer, nn.Conv2d):
                layer.stride = (1, 1)
            elif isinstance(layer, nn.AvgPool2d):
                first.downsample[index] = nn.Identity()
        info["reduction"] //= 2
    return model


def specs() -> list[HostSpec]:
    """The ResNet hosts."""
    published = [
        HostSpec(
            name=name,
            build=_published(variant),
            slots=slots(HEADS),
            fill=fill,
            stages=4,
            image_size=(224, 224),
            channels_first=True,
            settings=(DEFORMABLE,),
        )
        for name, variant in (("resnet50", "resnet50"), ("wide_resnet50", "wide_resnet50_2"))
    ]
    micro = HostSpec(
        name="resnet_micro",
        build=_micro,
        slots=slots(MICRO_HEADS),
        fill=fill,
        stages=2,
        image_size=(28, 28),
        channels_first=True,
        settings=(DEFORMABLE,),
    )
    return [*published, micro]
