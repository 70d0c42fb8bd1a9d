"""What the registry promises, and what it refuses."""

from __future__ import annotations

import re

import pytest
import torch

from ablate import costs, ops
from ablate.errors import UserError
from ablate.ops import axes, configs, registry


@pytest.mark.parametrize("name", ops.names())
def test_every_entry_builds_counts_and_survives_a_round_trip(name: str) -> None:
    operator = ops.create(name, 32, heads=2, resolution=(14, 14))
    assert costs.macs(operator, 1, 14, 14, 32) > 0
    again = ops.create(name, 32, heads=2, resolution=(14, 14))
    again.load_state_dict(operator.state_dict())
    x = torch.randn(2, 14, 14, 32)
    torch.testing.assert_close(again.eval()(x), operator.eval()(x))
    half = operator.to(torch.bfloat16)(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert half.isfinite().all()


# Parameters and multiply-accumulates per position at 96 channels, 3 heads, from the papers' formulas.
# ELSA's without its 64 element-wise products q⊙k.
FORMULAS = {
    ("lsa", ()): (37_755, 46_272),
    ("elsa", (("weights", (("group_width", 4),)),)): (57_907, 62_144 - 64),
    ("dwconv", ()): (4_800, 4_704),
    ("dwconv", (("channel", (("value", "linear"), ("output", "linear"))),)): (23_424, 23_136),
    ("involution", ()): (9_702, 14_064),
}


@pytest.mark.parametrize(("name", "overrides"), FORMULAS)
def test_costs_equal_the_formulas(name: str, overrides: tuple) -> None:
    operator = ops.create(
        name, 96, heads=3, resolution=(56, 56), **{axis: dict(values) for axis, values in overrides}
    )
    expected_parameters, expected_macs = FORMULAS[name, overrides]
    assert costs.parameters(operator) == expected_parameters
    assert costs.macs(operator, 1, 56, 56, 96) == expected_macs * 56 * 56


REFUSED = {
    "unknown operator": ({"name": "lssa"}, "did you mean 'lsa'"),
    "unknown setting": ({"regoin": {}}, "did you mean 'region'"),
    "unknown level": ({"norm": "softmix"}, "did you mean 'softmax'"),
    "unknown key of a level": (
        {"region": {"kernl": 3, "name": "neighborhood"}},
        "did you mean 'op.region.kernel'",
    ),
    "heads that do not divide": ({"channel": {"heads": 5}}, "possible numbers of heads: 1, 2, 3, 4"),
    "heads that are none": ({"channel": {"heads": "many"}}, "'C/16'"),
    "even kernel": ({"region": {"name": "neighborhood", "kernel": 4}}, "use 3 or 5"),
    "window larger than the map": ({"region": {"size": 15}}, "larger than the map of 14×14"),
    "non-integer λ": ({"channel": {"ghost_lambda": 0.5}}, "choose λ = 0"),
    "negative λ": ({"channel": {"ghost_lambda": -1}}, "choose λ = 0"),
    "unknown border": ({"region": {"name": "neighborhood", "border": "reflect"}}, "inside, mask, zero"),
    "convolution of weights in a window": ({"weights": "hadamard_conv"}, "use op/region=neighborhood"),
    "filter-norm over one tap": ({"norm": "filter_norm", "region": {"size": 1}}, "needs two"),
    "no terms": ({"weights": {"terms": []}}, "at least one"),
    "unknown term": ({"weights": {"terms": ["contents"]}}, "did you mean 'content'"),
    "wrong type": ({"region": {"size": "seven"}}, "expected int"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_is_built(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides, expected = REFUSED[case]
    monkeypatch.setattr(registry.LocalOperator, "__init__", lambda *_: pytest.fail("was built"))
    name = overrides.pop("name", "lsa") if isinstance(overrides.get("name"), str) else "lsa"
    with pytest.raises(UserError, match=re.escape(expected)):
        ops.create(name, 24, heads=3, resolution=(14, 14), **overrides)


@pytest.mark.parametrize("name", [name for name in ops.names() if ops.spec(name).config is not None])
def test_every_level_works_on_every_preset_or_is_refused_with_a_reason(name: str) -> None:
    x = torch.randn(2, 9, 8, 32)
    levels = [(axis, level) for axis in axes.AXES for level in configs.levels(axis)]
    forms = [("channel", {"heads": heads}) for heads in ("1", "1x", "2x", "4", "C")]
    refused = set()
    for axis, level in [*levels, *forms]:
        try:
            operator = ops.create(name, 32, heads=2, resolution=(9, 8), index=1, **{axis: level})
        except UserError as reason:
            assert reason.way_out
            refused.add((axis, level))
            continue
        y = operator(x)
        assert y.shape == x.shape
        y.sum().backward()
        assert all(parameter.grad is not None for parameter in operator.parameters())
    in_windows = {("region", "window"), ("region", "global")}
    expected = {"elsa": in_windows, "lsa": {("weights", "hadamard_conv")}}
    assert refused == expected.get(name, set())


def test_global_region_needs_the_map_and_holds_to_it() -> None:
    with pytest.raises(UserError, match="needs to know the map"):
        ops.create("lsa", 8, heads=2, region="global")
    operator = ops.create("lsa", 8, heads=2, region="global", resolution=(4, 5))
    with pytest.raises(UserError, match="built for a map of 4×5, this one is 5×5"):
        operator(torch.randn(1, 5, 5, 8))


def test_heads_in_every_form() -> None:
    forms = {"1": 1, "1x": 3, "2x": 6, "4": 4, "C": 24, "C/8": 3}
    assert {form: axes.resolve_heads(form, 24, 3) for form in forms} == forms


def test_levels_on_disk_are_the_levels_in_code() -> None:
    for axis in ("weights", "norm", "region"):
        on_disk = {configs.level(axis, level)["name"] for level in configs.levels(axis)}
        assert on_disk == set(axes.LEVELS[axis])
    assert {path.stem for path in (configs.conf_dir() / "op").glob("*.yaml")} <= set(ops.names())


def test_an_operator_of_its_own_gets_its_signature_as_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._entries()))

    @ops.register(
        "scaled", paper="none", year=2026, channel_setting="none", spatial_processing="none", strides=(1, 2)
    )
    class Scaled(torch.nn.Module):
        def __init__(self, dim: int, stride: int, factor: float = 2.0) -> None:
            super().__init__()
            self.factor, self.stride = factor, stride

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.factor * x[:, :: self.stride, :: self.stride]

    x = torch.ones(1, 4, 4, 2)
    assert ops.create("scaled", 2, heads=1, stride=2, factor=3.0)(x).sum() == 3 * 2 * 2 * 2
    with pytest.raises(UserError, match="did you mean 'factor'"):
        ops.create("scaled", 2, heads=1, facto=3.0)
    with pytest.raises(UserError, match="possible strides: 1, 2"):
        ops.create("scaled", 2, heads=1, stride=4)
    with pytest.raises(UserError, match="registered twice"):
        ops.register("scaled", paper="", year=0, channel_setting="", spatial_processing="")(Scaled)
