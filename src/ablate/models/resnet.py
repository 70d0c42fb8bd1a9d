"""ResNets whose 3×3 convolutions give way to LESA, involution or decoupled dynamic filters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import timm
from timm.models.resnet import Bottleneck, ResNet
from torch import nn

from ablate import hosts, ops
from ablate.hosts import resnet
from ablate.hosts.slots import ChannelsFirst
from ablate.models.hybrid import Hybrid, operator

LESA = (
    "LESA-{title} (Yang et al., 2021): LESA in all of stage 4, which keeps the resolution of stage 3, and in "
    "stage 3 but for its first block. Built for one image size: img_size."
)
REDNET = (
    "RedNet-{depth} (Li et al., 2021): involution of 7×7 for every 3×3 convolution of a bottleneck, and of "
    "3×3 in the stem."
)
DDF = (
    "DDF-{combination}-ResNet{depth} (Zhou et al., 2021): a decoupled dynamic filter of 3×3 for every 3×3 "
    "convolution of a bottleneck."
)
REDNETS = {26: (1, 2, 4, 1), 38: (2, 3, 5, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def hybrids() -> list[Hybrid]:
    """LESA in two widths, RedNet in five depths, DDF-ResNet in two depths and two combinations."""
    lesa = [
        Hybrid(name, like, partial(_lesa, host), LESA.format(title=title), fixed=True)
        for name, like, host, title in (
            ("lesa_resnet50", "resnet50", "resnet50", "ResNet50"),
            ("lesa_wide_resnet50", "wide_resnet50_2", "wide_resnet50", "WRN50"),
        )
    ]
    rednet = [
        Hybrid(f"rednet{depth}", "resnet50d", partial(_rednet, layers), REDNET.format(depth=depth))
        for depth, layers in REDNETS.items()
    ]
    ddf = [
        Hybrid(
            f"ddf_{combination}_resnet{depth}",
            f"resnet{depth}",
            partial(_ddf, f"resnet{depth}", combination),
            DDF.format(combination=combination, depth=depth),
        )
        for combination in ("mul", "add")
        for depth in (50, 101)
    ]
    return [*lesa, *rednet, *ddf]


def _lesa(host: str, op: Mapping[str, Any] | None = None, **kwargs: Any) -> nn.Module:
    """The authors do not begin their residual branches with zero."""
    settings = {"zero_init_last": False, **kwargs}
    return hosts.create(host, operator("lesa", op), stages=[3, 4], strided="keep", last_stride=1, **settings)


def _rednet(layers: tuple[int, ...], op: Mapping[str, Any] | None = None, **kwargs: Any) -> nn.Module:
    """Its classifier begins as the authors' framework draws it."""
    model = ResNet(Bottleneck, layers, **{"stem_type": "deep", "stem_width": 32, **kwargs})
    in_stem = operator("involution", {"region": {"kernel": 3}})
    width = model.conv1[3].in_channels
    model.conv1[3] = ChannelsFirst(ops.from_config(in_stem, ops.Slot(width, resnet.HEADS)))
    if isinstance(model.fc, nn.Linear):
        nn.init.normal_(model.fc.weight, std=0.01)
        nn.init.zeros_(model.fc.bias)
    return _filled(model, operator("involution", op))


def _ddf(like: str, combination: str, op: Mapping[str, Any] | None = None, **kwargs: Any) -> nn.Module:
    """Both branches begin as the network's convolutions do, as in the authors' code."""
    model = _filled(timm.create_model(like, **kwargs), operator("ddf", {"combination": combination}, op))
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and ".operator." in name:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return model


def _filled(model: nn.Module, config: Mapping[str, Any]) -> nn.Module:
    """Every bottleneck, those with a stride too."""
    entry = ops.spec(config["name"])
    find: Callable[..., Any] = resnet.slots(resnet.HEADS)
    for placed in list(find(model, (224, 224))):
        resnet.fill(model, placed, ops.from_config(config, placed.slot), entry)
    return model
