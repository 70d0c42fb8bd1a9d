"""Networks from timm with slots for an operator.

`slots` is what hosts have in common, `swin` the Swin family. A host's parameters outside its slots
are drawn before any operator's, so that runs with one seed start from the same bits whatever the
operator. May import `ablate.ops`; used by training. Start reading in `create` below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import nn

from ablate import ops
from ablate.errors import UserError, unknown
from ablate.hosts import swin
from ablate.hosts.slots import HostSpec, PlacedSlot

__all__ = ["HostSpec", "PlacedSlot", "check", "create", "names", "slots", "spec"]


@cache
def _specs() -> dict[str, HostSpec]:
    return {host.name: host for host in swin.specs()}


def names() -> list[str]:
    """The hosts."""
    return sorted(_specs())


def spec(name: str) -> HostSpec:
    """A host's entry.

    Raises:
        UserError: unknown name; names the nearest one.
    """
    if name not in _specs():
        raise unknown("host", name, _specs())
    return _specs()[name]


def create(
    name: str,
    op: str | Mapping[str, Any] | None,
    *,
    stages: Sequence[int] | None = None,
    **timm_kwargs: Any,
) -> nn.Module:
    """Build a host and put an operator into its slots.

    Args:
        name: see `names()`.
        op: an operator's name, a resolved `op` configuration, or None for timm's own network.
        stages: the stages to fill, counted from 1; all if None.
        timm_kwargs: to timm's class: num_classes, in_chans, img_size, drop_path_rate, …

    Raises:
        UserError: unknown names, stages or sizes; a combination that cannot exist, with the reason.

    Example:
        >>> create("swin_tiny", "elsa", stages=[1, 2, 3], num_classes=100)
    """
    host = spec(name)
    host.check(stages, timm_kwargs)
    model = host.build(**timm_kwargs)
    if op is None:
        return model
    config = ops.spec(op).defaults if isinstance(op, str) else op
    chosen = _chosen(host, model, stages)
    for placed in chosen:
        ops.check(config, placed.slot)
    operators = [ops.from_config(config, placed.slot) for placed in chosen]
    for placed, operator in zip(chosen, operators, strict=True):
        model.set_submodule(placed.path, host.fill(model.get_submodule(placed.path), operator))
    present = {id(module) for module in model.modules()}
    filled = sum(id(operator) in present for operator in operators)
    assert filled == len(chosen), f"{name}: {len(chosen)} slots were to be filled, {filled} were"
    return model


def slots(name: str, stages: Sequence[int] | None = None, **timm_kwargs: Any) -> list[PlacedSlot]:
    """The slots of a host, without computing or drawing any weight."""
    host = spec(name)
    host.check(stages, timm_kwargs)
    with torch.device("meta"):
        model = host.build(**timm_kwargs)
    return _chosen(host, model, stages)


def check(name: str, op: Mapping[str, Any], stages: Sequence[int] | None = None, **timm_kwargs: Any) -> None:
    """Refuse a combination of host and operator that cannot exist, before anything is built.

    Raises:
        UserError: with the reason and the stage it concerns.
    """
    for placed in slots(name, stages, **timm_kwargs):
        try:
            ops.check(op, placed.slot)
        except UserError as error:
            raise UserError(f"{name}, stage {placed.stage}: {error.problem}", error.way_out) from error


def _chosen(host: HostSpec, model: nn.Module, stages: Sequence[int] | None) -> list[PlacedSlot]:
    chosen = [placed for placed in host.slots(model) if stages is None or placed.stage in stages]
    if not chosen:
        raise UserError(
            f"{host.name}: host.stages={list(stages or ())} leaves no slot to fill", "name a stage"
        )
    return chosen
