"""Networks from timm, and NAT, with slots for an operator.

`slots` is what hosts have in common; `swin`, `resnet`, `convnext`, `volo` and `nat` are the families,
one published network or more and one for 28×28 images each. A host's parameters outside its slots are
drawn before any operator's, so that runs with one seed start from the same bits whatever the
operator. May import `ablate.ops`; used by `models`, `training`, `compose.check` and `bench`. Start
reading in `create` below.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from timm.models import register_notrace_module
from torch import nn

from ablate import ops
from ablate.errors import UserError, place_of, unknown
from ablate.hosts import convnext, nat, resnet, swin, volo
from ablate.hosts import slots as places
from ablate.hosts.features import Level, levels
from ablate.hosts.slots import SLOT, ChannelsFirst, HostSpec, PlacedSlot, operators
from ablate.plugins import Registry

__all__ = [
    "ChannelsFirst",
    "HostSpec",
    "PlacedSlot",
    "check",
    "create",
    "feature_levels",
    "names",
    "operators",
    "register",
    "require_any_size",
    "slots",
    "spec",
]


Build = TypeVar("Build", bound=Callable[..., nn.Module])


def _own() -> None:
    for family in (convnext, nat, resnet, swin, volo):
        for host in family.specs():
            _HOSTS.add(host.name, host)


_HOSTS: Registry[HostSpec] = Registry("a host", _own)


def register(
    name: str,
    *,
    slots: Callable[[nn.Module, tuple[int, int]], Iterator[PlacedSlot]],
    stages: int,
    image_size: tuple[int, int],
    **facts: Any,
) -> Callable[[Build], Build]:
    """Register a network with slots as a host: a decorator of the function or class that builds it.

    What is decorated takes `num_classes`, `in_chans` and `img_size`; its other arguments, with defaults, are
    settings `host.<setting>`; `pretrained` is one of every host already. It must not depend on the operator,
    and draws the same weights for the same seed. The operator replaces the module at a slot's path, unless
    `fill` in `facts` does something else.

    Args:
        name: in `host=<name>`.
        slots: every place that an operator can fill, in order, for a network and images of (H, W) pixels.
        stages: the last stage with slots; they count from 1.
        image_size: (H, W) that the network is made for.
        facts: other attributes of `HostSpec`, such as `channels_first=True` for feature maps (B, C, H, W);
            and `version`, changed by hand where results change though no text does.

    Raises:
        UserError: the name is taken or breaks the rule for names, or there is an argument `pretrained`.

    Example:
        >>> @register("my_net", slots=my_slots, stages=1, image_size=(28, 28), channels_first=True)
        ... class MyNet(nn.Module):
        ...     def __init__(self, num_classes, in_chans, img_size): ...
    """

    def decorate(build: Build) -> Build:
        if "pretrained" in inspect.signature(build).parameters:
            raise UserError(
                f"host {name!r} has an argument `pretrained`, which is a setting of every host",
                "leave it out: host.pretrained=FILE loads weights into the network that it builds",
            )
        fill = places.replace_channels_first if facts.get("channels_first") else places.replace
        given = {"fill": fill, "dense": False, **facts}
        version = given.pop("version", "")
        _HOSTS.add(name, HostSpec(name, build, slots, stages=stages, image_size=image_size, **given), version)
        return build

    return decorate


def registration() -> Registry[HostSpec]:
    """Return the registry itself, which knows versions and the modules that registered hosts."""
    return _HOSTS.all()


def names() -> list[str]:
    """The hosts."""
    return sorted(_HOSTS.all())


def spec(name: str) -> HostSpec:
    """A host's entry.

    Raises:
        UserError: unknown name; names the nearest one.
    """
    return _HOSTS.find(name)


def create(
    name: str,
    op: str | Mapping[str, Any] | None,
    *,
    stages: Sequence[int] | None = None,
    strided: str = "fill",
    **timm_kwargs: Any,
) -> nn.Module:
    """Build a host and put an operator into its slots.

    ResNets, ConvNeXt and NAT run on images of any size, Swin on another one than `img_size` with
    `strict_img_size=False` or after timm's `set_input_size`, VOLO on the size it was built for.
    An operator whose relative positions belong to one map says so when it sees another.

    Args:
        name: see `names()`.
        op: an operator's name, a resolved `op` configuration, or None for the network as it was published.
        stages: the stages to fill, counted from 1; all if None.
        strided: `fill` slots that halve the map too, or `keep` timm's layer in them. Only ResNets
            have such slots.
        timm_kwargs: to timm's class: num_classes, in_chans, img_size, drop_path_rate, …; ResNets
            also have `last_stride` (2, or 1 to keep the resolution in the last stage), Swin has
            `shift_order` (`roll_then_pad`, or `pad_then_roll` as in the authors' detectors), ResNets
            `deformable` (the stages whose 3×3 convolutions are).

    Raises:
        UserError: unknown names, stages or sizes; a combination that cannot exist, with the reason.

    Example:
        >>> create("swin_tiny", "elsa", stages=[1, 2, 3], num_classes=100)
    """
    host = spec(name)
    host.check(stages, strided, timm_kwargs)
    model = _built(host, timm_kwargs)
    if op is None:
        return model
    config = ops.spec(op).defaults if isinstance(op, str) else op
    chosen = _chosen(host, model, stages, strided, timm_kwargs)
    resolved = [_resolve(host, config, placed) for placed in chosen]  # all, before any weight is drawn
    operators = [operator.build() for operator in resolved]
    for placed, operator in zip(chosen, operators, strict=True):
        host.fill(model, placed, operator, resolved[0].spec)
        setattr(operator, SLOT, placed.slot)
        register_notrace_module(type(operator))  # torch.fx takes an operator whole: its code looks at shapes
    present = {id(module) for module in model.modules()}
    filled = sum(id(operator) in present for operator in operators)
    assert filled == len(chosen), f"{name}: {len(chosen)} slots were to be filled, {filled} were"
    return model


def slots(
    name: str, stages: Sequence[int] | None = None, strided: str = "fill", **timm_kwargs: Any
) -> list[PlacedSlot]:
    """The slots of a host, without computing or drawing any weight."""
    host = spec(name)
    host.check(stages, strided, timm_kwargs)
    with torch.device("meta"):
        model = _built(host, timm_kwargs)
    return _chosen(host, model, stages, strided, timm_kwargs)


def feature_levels(name: str, **timm_kwargs: Any) -> list[Level]:
    """The feature maps of a host's stages, without computing or drawing any weight.

    Raises:
        UserError: a host without them.
    """
    settings = {key: value for key, value in timm_kwargs.items() if key not in ("stages", "strided")}
    with torch.device("meta"):
        return levels(spec(name), _built(spec(name), settings))


def _built(host: HostSpec, timm_kwargs: dict[str, Any]) -> nn.Module:
    """The network without operators; timm's complaint about a setting as the user's error.

    Swin in timm 1.0.22 ignores settings that it does not know; here they are refused as well.
    """
    try:
        model = host.build(**timm_kwargs)
    except TypeError as error:
        found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if found is None:
            where = place_of(error)
            raise UserError(
                f"{host.name} cannot be built: {error}{where}", "correct it" if where else "see timm's class"
            ) from error
        raise unknown(f"setting of host {host.name}:", found[1], _settings(host)) from error
    except UserError:
        raise
    except Exception as error:
        if not (place := place_of(error)):
            raise
        raise UserError(
            f"host {host.name!r} cannot be built: {type(error).__name__}: {error}{place}", "correct it"
        ) from error
    parameters = inspect.signature(type(model)).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        for key in timm_kwargs:
            if key not in (known := _settings(host)):
                raise unknown(f"setting of host {host.name}:", key, known)
    return model


def _settings(host: HostSpec) -> set[str]:
    """Settings of a host: its own, and those of timm's class."""
    try:
        with torch.device("meta"):
            built: Callable[..., object] = type(host.build())
    except TypeError:  # one of somebody's own may have arguments without a default
        built = host.build
    named = inspect.signature(built).parameters.values()
    timms = {p.name for p in named if p.kind is not inspect.Parameter.VAR_KEYWORD}
    return {"stages", "strided", *host.settings, *timms}


def check(
    name: str,
    op: Mapping[str, Any],
    stages: Sequence[int] | None = None,
    strided: str = "fill",
    **timm_kwargs: Any,
) -> None:
    """Refuse a combination of host and operator that cannot exist, before anything is built.

    Raises:
        UserError: with the reason and the stage it concerns.
    """
    for placed in slots(name, stages, strided, **timm_kwargs):
        _resolve(spec(name), op, placed)


def require_any_size(
    name: str,
    op: Mapping[str, Any],
    stages: Sequence[int] | None = None,
    strided: str = "fill",
    **timm_kwargs: Any,
) -> None:
    """Refuse an operator that belongs to one size of map; for images of many sizes, and after `check`.

    It is one that cannot be built where the map is not known.

    Raises:
        UserError: names the first stage with such an operator.
    """
    for placed in slots(name, stages, strided, **timm_kwargs):
        unknown_map = replace(placed, slot=replace(placed.slot, resolution=None))
        try:
            _resolve(spec(name), op, unknown_map)
        except UserError as error:
            raise UserError(
                f"{name}, stage {placed.stage}: op={op.get('name')} is built for one size of map, and here "
                "images differ in size",
                "use another operator or op/region; sets in COCO's format have data.size=1024 for all images",
            ) from error


def _chosen(
    host: HostSpec,
    model: nn.Module,
    stages: Sequence[int] | None,
    strided: str,
    timm_kwargs: dict[str, Any],
) -> list[PlacedSlot]:
    chosen = [
        placed
        for placed in host.slots(model, host.images(timm_kwargs))
        if (stages is None or placed.stage in stages) and (strided == "fill" or placed.slot.stride == 1)
    ]
    if not chosen:
        raise UserError(
            f"{host.name}: host.stages={stages} with host.strided={strided} leaves no slot to fill",
            "name more stages",
        )
    return chosen


def _resolve(host: HostSpec, op: Mapping[str, Any], placed: PlacedSlot) -> ops.ResolvedOperator:
    """Resolve the operator in one slot; an error names host and stage."""
    try:
        return ops.resolve(str(op.get("name")), op, placed.slot)
    except UserError as error:
        way_out = error.way_out
        if placed.slot.stride not in ops.spec(str(op.get("name"))).strides:
            way_out = "use host.strided=keep, which leaves timm's convolution in the slots that halve the map"
        raise type(error)(f"{host.name}, stage {placed.stage}: {error.problem}", way_out) from error
