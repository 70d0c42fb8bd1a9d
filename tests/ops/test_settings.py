"""No setting is idle: another value gives other parameters, another start, or another output."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from tests.ops.small import OWN, PRESETS, WIDTHS, build, drawn, image, small
from torch import nn

from ablate import ops
from ablate.errors import UserError
from ablate.ops import axes

# Other values than the default; those of a `Literal` are found in the signature, a switch is turned over.
OTHER: dict[str, tuple[object, ...]] = {
    "heads": ("1", "C"),
    "groups": ("1x", "C"),
    "kernel": (5,),
    "encoder_kernel": (1, 5),
    "grid": (1, 2),
    "window": (4,),
    "dilation": (2,),
    "compressed": (16,),
    "experts": (3,),
    "share": (4,),
    "tokens": (2, 4),
    "reduction": (2,),
    "squeeze": (0.5,),
    "temperature": (1.0,),
    "levels": (3,),
    "growth": (4,),
    "offset_scale": (0.5,),
    "small_kernel": (5,),
    "pooled": (3,),
    "feature_kernel": (1, 5),
    "rates": ([2],),
    "depth": (1, 3),
    # of the axes
    "ghost_lambda": (1, 2),
    "ghost_gamma": (0.5,),
    "value": axes.PROJECTIONS,
    "value_initialization": axes.INITIALIZATIONS,
    "output": axes.OUTPUTS,
    "queries": (1, 3),
    "decay_initial": (1.0,),
    "decay_range": (2.0,),
    "pooled_share": (0.4, 1.0),
    "gains": axes.GAINS,
    "size": (4,),
    "shift": axes.SHIFTS,
    "border": axes.BORDERS,
    "scale": (0.7,),
    "group_width": (2,),
    "terms": (["content"], ["bias"], ["key_position", "query_position"], ["content", "decay"]),
}


def others(operator: nn.Module, setting: str, present: object) -> list[object]:
    hint = get_type_hints(type(operator).__init__).get(setting)
    if get_origin(hint) is Literal:
        return [value for value in get_args(hint) if value != present]
    if isinstance(present, bool):
        return [not present]
    return [value for value in OTHER[setting] if str(value) != str(present)]


def idle(name: str, override: dict[str, Any]) -> bool:
    """Whether the operator is the same with the override; one that is refused with a way out is not."""
    operator = build(name, index=1)
    try:
        other = build(name, index=1, **override)
    except UserError as refused:
        assert refused.way_out
        return False
    ours, theirs = operator.state_dict(), other.state_dict()
    if ours.keys() != theirs.keys() or any(not torch.equal(ours[key], theirs[key]) for key in ours):
        return False
    x = image(5, 7, dim=WIDTHS.get(name, 8))
    return torch.allclose(drawn(operator).eval()(x), drawn(other).eval()(x))


@pytest.mark.parametrize("name", OWN)
def test_every_setting_of_an_operator_of_its_own_counts(name: str) -> None:
    chosen = {**ops.spec(name).defaults, **small(name)}
    for setting in chosen.keys() - {"name"}:
        for value in others(build(name), setting, chosen[setting]):
            assert not idle(name, {setting: value}), f"{setting}={value}"


def nothing_to_change(config: axes.OperatorConfig) -> set[str]:
    """What cannot count at this point: initialising no projection, borders that lose their taps alike."""
    found = set()
    if config.channel.value == "identity":
        found |= {f"channel.value_initialization={value}" for value in axes.INITIALIZATIONS}
    if config.norm.name in axes.ELEMENTWISE:
        found |= {"region.border=zero", "region.border=mask"}
    return found


@pytest.mark.parametrize("name", PRESETS)
def test_every_setting_of_an_axis_counts(name: str) -> None:
    config = ops.spec(name).config
    assert config is not None
    for axis in axes.AXES:
        present: dict[str, Any] = {**ops.spec(name).defaults[axis], **small(name).get(axis, {})}
        for setting in present.keys() - {"name"}:
            for value in others(build(name), setting, present[setting]):
                changed = f"{axis}.{setting}={value}"
                assert idle(name, {axis: {setting: value}}) == (changed in nothing_to_change(config)), changed
