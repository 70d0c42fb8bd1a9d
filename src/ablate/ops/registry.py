"""The registry: what makes an operator reachable from Python, Hydra, tests, benchmarks and tables."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Required, TypedDict, TypeVar, Unpack

import torch
import yaml
from torch import nn

from ablate import plugins
from ablate.configuration import CONF_OP, conf_dirs
from ablate.errors import BrokenOperatorError, UserError, place_of, unknown
from ablate.ops import axes, configs, description
from ablate.ops.checks import kernel_fits
from ablate.ops.local import LocalOperator
from ablate.ops.settings import Settings
from ablate.plugins import Registry

FAMILIES = ("swin", "resnet", "volo", "convnext", "nat")
SWIN, RESNET, VOLO, CONVNEXT, NAT = (f"host={family}_micro" for family in FAMILIES)
GEOMETRY = ("dim", "heads", "resolution", "stride", "index", "shift_order", "deformable", "slot")

Module = TypeVar("Module", bound=type[nn.Module])


@dataclass(frozen=True)
class OperatorSpec:
    """One entry of the zoo.

    Attributes:
        year: 0 if there is none.
        equation: what it computes, in the letters of `ablate ops NAME`.
        quirks: what the authors' code does that one would not expect, and how to switch it off.
        strides: those it has a form for.
        equivariance: away from borders, shifting the input by a multiple of this many positions shifts the
            output equally; 0 if there is no such property (windows, absolute positions, pooled features).
        host: overrides of `ablate train` for a small network of the kind that its paper puts it into.
        ends_in_norm: its last layer is a normalisation, so that a host leaves out its own.
        sliding: its settings that are sizes of a sliding kernel, refused where it is too large for the map.
        config: the point on the two axes; None for operators that are not one such sum.
        version: changed by hand where results change though the operator's own text does not.
        module: that the operator's class is defined in; empty of presets.
    """

    name: str
    build: Callable[[dict[str, Any], axes.Slot], nn.Module]
    paper: str
    year: int
    defaults: dict[str, Any]
    channel_setting: str
    spatial_processing: str
    equation: str = ""
    quirks: tuple[str, ...] = ()
    strides: tuple[int, ...] = (1,)
    equivariance: int = 0
    host: str = SWIN
    ends_in_norm: bool = False
    sliding: tuple[str, ...] = ()
    config: axes.OperatorConfig | None = None
    version: str = ""
    module: str = ""

    def cited(self, separator: str = " ") -> str:
        """Return paper and year; the paper alone without a year."""
        return f"{self.paper}{separator}{self.year}" if self.year else self.paper


def _zoo() -> None:
    """Import what registers the operators of this package."""
    from ablate.ops import zoo

    for module in pkgutil.iter_modules(zoo.__path__):
        importlib.import_module(f"{zoo.__name__}.{module.name}")


_ENTRIES: Registry[OperatorSpec] = Registry("an operator", _zoo)


def register_preset(
    name: str,
    *,
    paper: str,
    year: int,
    equation: str = "",
    quirks: tuple[str, ...] = (),
    host: str = SWIN,
    version: str = "",
) -> None:
    """Register the point on the two axes that `conf/op/<name>.yaml` describes.

    `version` is as in `register`.

    Raises:
        UserError: the name is taken or breaks the rule for names, or its file is missing or wrong.
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
            channel_setting=description.of_channel(config),
            spatial_processing=description.of_spatial(config),
            equation=equation,
            quirks=quirks,
            strides=(1, 2),
            equivariance=description.equivariance(config),
            host=host,
            config=config,
            version=str(version),
        )
    )


class Card(TypedDict, total=False):
    """Fields of `OperatorSpec` that an operator's class does not show, as arguments of `register` by name."""

    paper: Required[str]
    year: Required[int]
    channel_setting: Required[str]
    spatial_processing: Required[str]
    equation: str
    quirks: tuple[str, ...]
    strides: tuple[int, ...]
    equivariance: int
    host: str
    ends_in_norm: bool
    sliding: tuple[str, ...]
    version: str


def register(name: str, **card: Unpack[Card]) -> Callable[[Module], Module]:
    """Register an operator of its own: a class decorator.

    The class is an `nn.Module` that maps (B, H, W, C) to (B, H', W', C), channels last. Its
    constructor must take `dim`, and may take `heads`, `resolution`, `stride`, `index`, `shift_order`
    and `deformable`, all given by the host, or in place of all of them `slot`, a `Slot` that holds
    them; its other arguments become the operator's settings in
    Python (`create`) and in Hydra (`op=<name> op.<setting>=…`), checked against their annotations:
    numbers, strings, booleans, None, enumerations, `Literal`, `Path`, tuples, lists, dicts and dataclasses.
    Defaults are in `conf/op/<name>.yaml` or else in the signature. A file with `heads` makes
    `heads` a setting (`1x`, `C`, an integer) that is resolved for each slot.

    A run records a digest of the operator's module and of what that imports of its own package. Change
    `version` where results change though these texts do not: a table that is read, a library of your own.

    Args:
        name: of the operator, as in `op=<name>`.
        card: see `OperatorSpec`; `paper`, `year`, `channel_setting` and `spatial_processing` are required.

    Raises:
        UserError: the name is taken or breaks the rule for names, a setting has no default, or a part of the
            card is unknown or missing.
    """
    for key in card:
        if key not in Card.__annotations__:
            raise unknown(f"register({name!r}): no argument", key, list(Card.__annotations__))
    if missing := sorted(Card.__required_keys__ - card.keys()):
        raise UserError(f"register({name!r}) without {', '.join(missing)}", "give them by name")

    details: dict[str, Any] = {**card, "version": str(card.get("version", ""))}

    def decorate(module: Module) -> Module:
        settings = Settings.of(module, GEOMETRY)
        defaults = {"name": name, **settings.defaults, **(configs.preset(name) or {})}
        for setting in settings.hints:
            if setting not in defaults:
                raise UserError(f"operator {name!r}: its setting {setting!r} has no default", "give it one")

        def build(config: dict[str, Any], slot: axes.Slot) -> nn.Module:
            if "heads" in config:
                heads = axes.resolve_heads(str(config["heads"]), slot.dim, slot.heads, "op.heads")
                slot = replace(slot, heads=heads)
            geometry = {key: slot if key == "slot" else getattr(slot, key) for key in settings.geometry}
            return module(**geometry, **settings.read("op", config))

        _add(
            OperatorSpec(
                name=name,
                build=build,
                defaults=defaults,
                module=module.__module__,
                **details,
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
    return _entries().find(name)


@dataclass(frozen=True)
class ResolvedOperator:
    """An operator whose settings have been checked for one slot."""

    spec: OperatorSpec
    settings: dict[str, Any]
    slot: axes.Slot

    def build(self) -> nn.Module:
        """Build the operator, (B, H, W, C) → (B, H', W', C), channels last."""
        return self.spec.build(self.settings, self.slot)


def resolve(name: str, settings: Mapping[str, Any], slot: axes.Slot) -> ResolvedOperator:
    """Check an operator's settings for a slot: the one place where they are checked.

    Args:
        name: a registry entry, see `names()`.
        settings: all of the entry's settings, as in a resolved `op` configuration.
        slot: where the operator will be.

    Raises:
        UserError: unknown names and settings, naming the nearest valid one; what cannot exist in the slot,
            with the reason and the way out.
    """
    entry = spec(name)
    for key in settings:
        if key not in entry.defaults:
            raise unknown(f"setting of operator {entry.name!r}:", key, entry.defaults)
    if slot.stride not in entry.strides:
        raise UserError(
            f"operator {entry.name!r} has no form with stride {slot.stride}",
            f"possible strides: {', '.join(map(str, entry.strides))}; leave strided layers as they are",
        )
    if entry.config is not None:
        axes.check(axes.parse(settings), slot)
    else:
        _check_constructor(entry, settings, slot)
        _check_sliding(entry, settings, slot)
    return ResolvedOperator(entry, dict(settings), slot)


def create(
    name: str,
    dim: int,
    *,
    heads: int,
    resolution: tuple[int, int] | None = None,
    stride: int = 1,
    index: int = 0,
    settings: Mapping[str, Any] | None = None,
    **overrides: Any,
) -> nn.Module:
    """Build an operator, (B, H, W, C) → (B, H', W', C), channels last.

    Args:
        name: a registry entry, see `names()`.
        dim: channels C.
        heads: the host's own number of heads, that `1x` refers to.
        resolution: (H, W) where the operator will be, if known.
        stride: of the layer that it replaces.
        index: place of the block within its stage; shifted windows alternate with it.
        overrides: settings that differ from the entry's defaults; for an axis a level's name
            (`region="window"`) or settings of a level (`region={"kernel": 5}`).
        settings: the same, for a setting whose name is an argument here: `settings={"heads": "C"}`.

    Raises:
        UserError: see `resolve`.

    Example:
        >>> create("lsa", 96, heads=3, resolution=(56, 56), channel={"heads": "2x"})
    """
    config = configs.override(spec(name).defaults, {**overrides, **(settings or {})})
    return from_config(config, axes.Slot(dim, heads, resolution, stride, index))


def from_config(config: Mapping[str, Any], slot: axes.Slot) -> nn.Module:
    """Build the operator of a resolved `op` configuration in a slot.

    Raises:
        UserError: see `resolve`.
    """
    return resolve(str(config.get("name")), config, slot).build()


def check(config: Mapping[str, Any], slot: axes.Slot) -> None:
    """Refuse a configuration that cannot exist in `slot`, before anything is built.

    Raises:
        UserError: see `resolve`.
    """
    resolve(str(config.get("name")), config, slot)


def _check_constructor(entry: OperatorSpec, settings: Mapping[str, Any], slot: axes.Slot) -> None:
    """Let an operator's constructor refuse what it does not take; no weight is drawn.

    Raises:
        UserError: the constructor's own.
        BrokenOperatorError: what else it raised, with the line.
    """
    try:
        with torch.device("meta"):
            entry.build(dict(settings), slot)
    except UserError:
        raise
    except Exception:  # a constructor that reads values cannot run on the meta device
        try:
            with torch.random.fork_rng():
                entry.build(dict(settings), slot)
        except UserError:
            raise
        except Exception as error:
            raise BrokenOperatorError(
                f"operator {entry.name!r} cannot be built: {type(error).__name__}: {error}{place_of(error)}",
                "correct its constructor, or give other settings",
            ) from error


def _check_sliding(entry: OperatorSpec, config: Mapping[str, Any], slot: axes.Slot) -> None:
    if slot.resolution is None:
        return
    dilation, border = config.get("dilation", 1), config.get("border", "zero")
    for setting in entry.sliding:
        kernel_fits(
            f"op.{setting}", config[setting], dilation, border, slot.resolution, dilation_path="op.dilation"
        )


def _add(entry: OperatorSpec) -> None:
    _ENTRIES.add(entry.name, entry, entry.version)


def registration() -> Registry[OperatorSpec]:
    """Return the registry itself, which knows versions and the modules that registered operators."""
    return _entries()


def load_file(path: str) -> list[str]:
    """Import a Python file and return the operators that it registers.

    Raises:
        UserError: see `plugins.import_file`; or the file registers no operator.
    """
    _entries()
    module = plugins.import_file(path)
    found = sorted(key for key, entry in _entries().items() if entry.module == module)
    if not found:
        raise UserError(f"{path} registers no operator", "decorate a class with @ablate.ops.register")
    return found


def broken() -> dict[str, str]:
    """Return the plug-ins that cannot be loaded, each with the reason in one line."""
    _entries()
    return plugins.broken()


def _entries() -> Registry[OperatorSpec]:
    """Return the registry, with the presets that plug-ins have as files alone."""
    entries = _ENTRIES.all()
    for folder in conf_dirs()[1:]:
        _register_files(folder)
    return entries


@cache
def _register_files(folder: Path) -> None:
    """Register the points of the equation in a plug-in's `conf/op`, each under the name of its file."""
    for path in sorted((folder / CONF_OP).glob("*.yaml")):
        try:
            if path.stem not in _ENTRIES and (configs.preset(path.stem) or {}).get("name") == path.stem:
                register_preset(path.stem, paper="own preset", year=0)
        except (UserError, OSError, ValueError, yaml.YAMLError, TypeError, KeyError) as error:
            first = str(error).splitlines()[0]
            plugins.report_broken(str(path), first)
