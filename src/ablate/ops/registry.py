"""The registry: what makes an operator reachable from Python, Hydra, tests, benchmarks and tables."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any, TypeVar

from torch import nn

from ablate.errors import UserError, unknown
from ablate.ops import axes, configs
from ablate.ops.local import LocalOperator

PLUGINS = "ABLATE_OPERATORS"  # environment variable: comma-separated modules that register operators
GEOMETRY = ("dim", "heads", "resolution", "stride", "index")

Module = TypeVar("Module", bound=type[nn.Module])


@dataclass(frozen=True)
class OperatorSpec:
    """One entry of the zoo."""

    name: str
    build: Callable[[dict[str, Any], axes.Slot], nn.Module]
    paper: str
    year: int
    defaults: dict[str, Any]
    channel_setting: str
    spatial_processing: str
    strides: tuple[int, ...] = (1,)
    config: axes.OperatorConfig | None = None  # None for operators that are not one sum


_ENTRIES: dict[str, OperatorSpec] = {}


def register_preset(name: str, *, paper: str, year: int) -> None:
    """Register the point on the two axes that `conf/op/<name>.yaml` describes.

    Raises:
        UserError: the name is taken, or its file is missing or wrong.
    """
    defaults = configs.preset(name)
    if defaults is None:
        raise UserError(f"preset {name!r} has no conf/op/{name}.yaml", "write one beside the others")
    config = axes.parse(defaults)
    _add(
        OperatorSpec(
            name=name,
            build=lambda settings, slot: LocalOperator(axes.parse(settings), slot),
            paper=paper,
            year=year,
            defaults=defaults,
            channel_setting=describe_channel(config),
            spatial_processing=describe_spatial(config),
            config=config,
        )
    )


def register(
    name: str,
    *,
    paper: str,
    year: int,
    channel_setting: str,
    spatial_processing: str,
    strides: tuple[int, ...] = (1,),
) -> Callable[[Module], Module]:
    """Register an operator of its own: a class decorator.

    The class is an `nn.Module` that maps (B, H, W, C) to (B, H', W', C), channels last. Its
    constructor takes `dim` and those of heads, resolution, stride and index that it needs, all
    given by the host; its other keyword arguments, each with a default, become the operator's
    settings in Python (`create`) and in Hydra (`op=<name> op.<setting>=…`). Defaults in
    `conf/op/<name>.yaml`, if there is one, come before those of the signature.

    Raises:
        UserError: the name is taken, or a setting has no default.
    """

    def decorate(module: Module) -> Module:
        parameters = list(inspect.signature(module.__init__).parameters.values())[1:]
        accepted = {parameter.name for parameter in parameters} & set(GEOMETRY)
        settings = {p.name: p.default for p in parameters if p.name not in GEOMETRY}
        for setting, default in settings.items():
            if default is inspect.Parameter.empty:
                raise UserError(f"operator {name!r}: its setting {setting!r} has no default", "give it one")

        def build(config: dict[str, Any], slot: axes.Slot) -> nn.Module:
            geometry = {key: getattr(slot, key) for key in accepted}
            return module(**geometry, **{key: config[key] for key in settings})

        _add(
            OperatorSpec(
                name=name,
                build=build,
                paper=paper,
                year=year,
                defaults={"name": name, **settings, **(configs.preset(name) or {})},
                channel_setting=channel_setting,
                spatial_processing=spatial_processing,
                strides=strides,
            )
        )
        return module

    return decorate


def names() -> list[str]:
    """The registered operators, in alphabetical order."""
    return sorted(_entries())


def spec(name: str) -> OperatorSpec:
    """An operator's entry.

    Raises:
        UserError: unknown name; names the nearest one.
    """
    entries = _entries()
    if name not in entries:
        raise unknown("operator", name, entries)
    return entries[name]


def create(
    name: str,
    dim: int,
    *,
    heads: int,
    resolution: tuple[int, int] | None = None,
    stride: int = 1,
    index: int = 0,
    **overrides: Any,
) -> nn.Module:
    """Build an operator, (B, H, W, C) → (B, H', W', C), channels last.

    Args:
        name: a registry entry, see `names()`.
        dim: channels C.
        heads: the host's own number of heads (what `1x` means).
        resolution: (H, W) where the operator will stand, if known.
        stride: of the layer that it replaces.
        index: place of the block within its stage; shifted windows alternate with it.
        overrides: settings that differ from the entry's defaults; for an axis a level's name
            (`region="window"`) or settings of a level (`region={"kernel": 5}`).

    Raises:
        UserError: unknown names and arguments, naming the nearest valid one; combinations that
            cannot exist, with the reason.

    Example:
        >>> create("lsa", 96, heads=3, resolution=(56, 56), channel={"heads": "2x"})
    """
    entry = spec(name)
    return from_config(
        configs.override(entry.defaults, overrides), axes.Slot(dim, heads, resolution, stride, index)
    )


def from_config(config: Mapping[str, Any], slot: axes.Slot) -> nn.Module:
    """Build the operator of a resolved `op` configuration in a slot."""
    entry = spec(str(config.get("name")))
    check(config, slot)
    return entry.build(dict(config), slot)


def check(config: Mapping[str, Any], slot: axes.Slot) -> None:
    """Refuse a configuration that cannot exist in `slot`, before anything is built.

    Raises:
        UserError: with the reason and the way out.
    """
    entry = spec(str(config.get("name")))
    for key in config:
        if key not in entry.defaults:
            raise unknown(f"setting of operator {entry.name!r}:", key, entry.defaults)
    if slot.stride not in entry.strides:
        raise UserError(
            f"operator {entry.name!r} has no form with stride {slot.stride}",
            f"possible strides: {', '.join(map(str, entry.strides))}; leave strided layers as they are",
        )
    if entry.config is not None:
        axes.check(axes.parse(config), slot)


def describe_channel(config: axes.OperatorConfig) -> str:
    """The channel setting in a few words, as in the zoo table."""
    channel = config.channel
    parts = [
        {"C": "a filter per channel", "1x": "the host's heads"}.get(channel.heads, f"{channel.heads} heads")
    ]
    if channel.ghost_lambda or channel.ghost_gamma:
        parts.append(f"ghost head λ={channel.ghost_lambda} γ={channel.ghost_gamma:g}")
    projected = [name for name in ("value", "output") if getattr(channel, name) == "linear"]
    parts.append(f"{' and '.join(projected)} projection" if projected else "no projections")
    return ", ".join(parts)


def describe_spatial(config: axes.OperatorConfig) -> str:
    """The spatial processing in a few words: region, weights, norm."""
    region, weights = config.region, config.weights
    if isinstance(region, axes.Window):
        where = f"window {region.size}×{region.size}" + (", shifted" if region.shift == "alternate" else "")
    elif isinstance(region, axes.Neighborhood):
        where = f"neighborhood {region.kernel}×{region.kernel}"
        if config.norm.name != "identity":  # without a norm all taps outside the map are lost alike
            where += f", border {region.border}"
    else:
        where = "whole map"
    symbols = {"content": "q·k", "query_position": "q·rᵏ", "key_position": "rᵠ·k", "bias": "rᵇ"}
    if isinstance(weights, axes.Pairwise):
        what = " + ".join(symbols[term] for term in weights.terms)
    elif isinstance(weights, axes.Hadamard):
        what = " + ".join(symbols[term] for term in weights.terms) + " on q⊙k"
    else:
        what = {
            "hadamard_conv": "q⊙k through convolutions",
            "bottleneck": "centre feature, bottleneck",
            "linear": "centre feature, linear",
            "static": "static",
        }[weights.name]
    norm = {"softmax": "softmax", "filter_norm": "filter-norm", "identity": "no norm"}[config.norm.name]
    return f"{where}; {what}; {norm}"


def _add(entry: OperatorSpec) -> None:
    if entry.name in _ENTRIES:
        raise UserError(f"operator {entry.name!r} is registered twice", "give the new one another name")
    _ENTRIES[entry.name] = entry


@cache
def _load() -> None:
    from ablate.ops import zoo

    for module in pkgutil.iter_modules(zoo.__path__):
        importlib.import_module(f"{zoo.__name__}.{module.name}")
    for point in entry_points(group="ablate.operators"):
        point.load()
    for plugin in filter(None, os.environ.get(PLUGINS, "").split(",")):
        try:
            importlib.import_module(plugin.strip())
        except ModuleNotFoundError as error:
            raise UserError(
                f"{PLUGINS} names the module {plugin.strip()!r}, which cannot be imported: {error}",
                "put its folder on PYTHONPATH, or unset the variable",
            ) from error


def _entries() -> dict[str, OperatorSpec]:
    _load()
    return _ENTRIES
