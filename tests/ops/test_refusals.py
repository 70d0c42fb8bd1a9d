"""What cannot exist is refused at once, with what was given and a way out."""

from __future__ import annotations

import re
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from tests.ops.small import OWN, PRESETS, build, image

from ablate import ops
from ablate.errors import UserError
from ablate.ops import registry

# Operator, settings, what differs from a slot of 24 channels, 3 heads and a map of 14×14, what is said.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "unknown operator": ("lssa", {}, {}, "did you mean 'lsa'"),
    "unknown axis": ("lsa", {"regoin": {}}, {}, "did you mean 'region'"),
    "unknown level": ("lsa", {"norm": "softmix"}, {}, "did you mean 'softmax'"),
    "unknown key of a level": (
        "lsa",
        {"region": {"kernl": 3, "name": "neighborhood"}},
        {},
        "did you mean 'op.region.kernel'",
    ),
    "heads that do not divide": (
        "lsa",
        {"channel": {"heads": 5}},
        {},
        "possible numbers of heads: 1, 2, 3, 4, 6, 8, 12, 24",
    ),
    "heads that are none": ("lsa", {"channel": {"heads": "many"}}, {}, "'C/16'"),
    "even kernel": ("lsa", {"region": {"name": "neighborhood", "kernel": 4}}, {}, "use 3 or 5"),
    "window larger than the map": ("lsa", {"region": {"size": 15}}, {}, "larger than the map of 14×14"),
    "λ not whole": ("lsa", {"channel": {"ghost_lambda": 0.5}}, {}, "choose λ = 0"),
    "λ negative": ("lsa", {"channel": {"ghost_lambda": -1}}, {}, "choose λ = 0"),
    "unknown border": (
        "lsa",
        {"region": {"name": "neighborhood", "border": "reflect"}},
        {},
        "inside, mask, zero",
    ),
    "unknown dilation": ("dinat", {"region": {"dilation": "alternates"}}, {}, "did you mean 'alternate'"),
    "alternate without its map": ("dinat", {}, {"resolution": None, "index": 1}, "give resolution="),
    "convolution of weights in a window": (
        "lsa",
        {"weights": "hadamard_conv"},
        {},
        "use op/region=neighborhood",
    ),
    "keys between positions": (
        "lsa",
        {"region": "sampled"},
        {},
        "op.weights.terms=[query_position,bias]",
    ),
    "keys of positions between": ("elsa_equation", {"region": "sampled"}, {}, "key_position needs the key"),
    "groups through heads": (
        "dynamic_filter",
        {"region": {"name": "sampled", "groups": 2}},
        {},
        "neither divides the other",
    ),
    "groups of channels": (
        "dwconv",
        {"region": {"name": "sampled", "groups": 7}},
        {},
        "does not divide the 24 channels",
    ),
    "filter-norm over one tap": ("lsa", {"norm": "filter_norm", "region": {"size": 1}}, {}, "needs two"),
    "channels without a half": ("lsa", {"weights": "wide_conv"}, {"dim": 27}, "use an even number"),
    "unknown gains": ("qna", {"weights": {"gains": "per_taps"}}, {}, "did you mean 'per_tap'"),
    "a norm of weights that are alike": ("lsa", {"weights": "hadamard_gate"}, {}, "use op/norm=tanh"),
    "share of heads": ("attn_conv", {"pooled_share": 1.5}, {}, "use a number up to 1"),
    "rotation of half pairs": ("manhattan", {"heads": "8"}, {}, "op.rotation=false"),
    "no terms": ("lsa", {"weights": {"terms": []}}, {}, "at least one"),
    "unknown term": ("lsa", {"weights": {"terms": ["contents"]}}, {}, "did you mean 'content'"),
    "wrong type": ("lsa", {"region": {"size": "seven"}}, {}, "expected int"),
    "global without its map": ("lsa", {"region": "global"}, {"resolution": None}, "needs to know the map"),
    "width without a bottleneck": ("involution", {}, {"dim": 34, "heads": 2}, "16 does not divide"),
    "reduction": ("d_dwconv", {"weights": {"reduction": 5}}, {}, "does not divide the 24 channels"),
    "groups": ("conv", {"groups": 5}, {}, "op.groups=5"),
    "groups of a mixture": ("condconv", {"groups": "C/7"}, {}, "7 does not divide the 24 channels"),
    "heads of its own": ("ddf", {"heads": 5}, {}, "possible numbers of heads"),
    "host's heads": ("outlook", {}, {"heads": 5}, "op.heads=1x: 5 heads do not divide the 24 channels"),
    "one tap": ("ddf", {"kernel": 1}, {}, "needs two taps"),
    "squeezed to nothing": ("ddf", {"squeeze": 0.01}, {}, "use a share above 1/24"),
    "share": ("san_pairwise", {"share": 7}, {}, "op.share=7 does not divide the 24 channels"),
    "relation": ("san_patchwise", {"reduction": 5}, {}, "op.reduction=5 does not divide the 24 channels"),
    "heads of odd width": ("sasa", {"heads": "C/3"}, {}, "whose double divides 24"),
    "half heads of odd width": ("lesa_window", {"heads": "C/3"}, {}, "whose double divides 24"),
    "no map": ("lesa", {}, {"resolution": None}, "give resolution=(height, width)"),
    "neither term": ("lesa_qr", {"unary": "none", "binary": "none"}, {}, "keep op.unary=conv or"),
    "LESA's window": ("lesa_window", {"window": 8}, {"resolution": (7, 9)}, "larger than the map of 7×9"),
    "no branches": ("dilated_reparam", {"kernel": 3}, {}, "5, 7, 9, 11, 13, 15, 17, or op.branches=none"),
    "tokens of no map": ("aggregated", {}, {"resolution": None}, "or an integer"),
    "no token": ("aggregated", {"reduction": 15}, {}, "use op.reduction=14 or less"),
    "a head for two regions": ("plg", {"heads": "1"}, {}, "use an even number"),
    "PLG's window": ("plg", {"window": 8}, {"resolution": (7, 9)}, "larger than the map of 7×9"),
    "tokens among neighbors": (
        "i_d_dwconv",
        {"region": "window_and_pooled", "channel": {"heads": "1x"}},
        {},
        "use op/region=window, or op/weights=linear",
    ),
    "tokens at no distance": (
        "lsa",
        {"region": "window_and_pooled", "norm": "softmax_decay"},
        {},
        "without the term decay",
    ),
    "no rate": ("rasa", {"rates": []}, {}, "use [1, 3, 5]"),
    "keys of no map": ("rasa", {}, {"resolution": None}, "or an integer"),
    "no key": ("rasa", {"reduction": 15}, {}, "use op.reduction=14 or less"),
    "narrow groups": ("dcnv4", {"heads": "C/8"}, {}, "multiples of 16"),
    "no published branches": ("contmix", {"kernel": 11}, {}, "use one of 5, 7, 9, 13"),
    "small above large": ("contmix", {"kernel": 5, "small_kernel": 7}, {}, "use op.small_kernel=5 or less"),
    "heads of halves": ("contmix", {"heads": "C/3"}, {}, "whose double divides 24"),
    "no region of the map": (
        "dynamic_filter",
        {"weights": {"name": "pooled_affinity", "pooled": 0}},
        {},
        "op.weights.pooled=0 is not positive",
    ),
    "growth to even kernels": ("focal", {"growth": 3}, {}, "use 4"),
    "stride": ("slide", {}, {"stride": 2}, "possible strides: 1;"),
    "large stride": ("lsa", {}, {"stride": 3}, "possible strides: 1, 2;"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_before_anything_is_built(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, overrides, slot, expected = CASES[case]
    monkeypatch.setattr(registry.LocalOperator, "__init__", lambda *_: pytest.fail("was built"))
    given = {"dim": 24, "heads": 3, "resolution": (14, 14), **slot}
    before = torch.get_rng_state()
    with pytest.raises(UserError, match=re.escape(expected)) as refused:
        ops.create(name, **given, settings=overrides)
    assert refused.value.way_out
    assert torch.equal(torch.get_rng_state(), before), "a weight was drawn"


def refused(name: str, **settings: Any) -> str:
    with pytest.raises(UserError) as error:
        ops.create(name, 48, heads=3, resolution=(14, 14), settings=settings)
    assert error.value.way_out
    return str(error.value)


@pytest.mark.parametrize("name", OWN)
def test_every_setting_of_an_operator_of_its_own_refuses_what_it_cannot_be(name: str) -> None:
    hints = get_type_hints(type(build(name)).__init__)
    for setting, default in ops.spec(name).defaults.items():
        if setting == "name":
            continue
        assert f"did you mean '{setting}'" in refused(name, **{f"{setting}s": default})
        for value in ([], {}, None, float("nan")):
            assert f"op.{setting}" in refused(name, **{setting: value})
        if get_origin(hints.get(setting)) is Literal:
            for value in get_args(hints[setting]):
                assert f"did you mean {value!r}" in refused(name, **{setting: f"{value}x"})
        elif isinstance(default, bool):
            assert "expected bool" in refused(name, **{setting: 1})
        elif setting != "heads" and hints.get(setting) in (int, float):
            assert "has the wrong type" in refused(name, **{setting: "seven"})
            for value in (0, -1):
                assert "is not positive" in refused(name, **{setting: value})
        if "kernel" in setting:
            assert f"op.{setting}=4 is even" in refused(name, **{setting: 4})


@pytest.mark.parametrize("name", PRESETS)
def test_every_size_on_an_axis_is_positive(name: str) -> None:
    for axis in ("weights", "region"):
        level = ops.spec(name).defaults[axis]
        for setting in level.keys() & {"kernel", "dilation", "size", "reduction", "group_width", "queries"}:
            for value in (0, -1):
                message = refused(name, **{axis: {setting: value}})
                assert f"op.{axis}.{setting}={value} is not positive" in message


# Refused where the map is seen: settings, the map it was built for, what is said of one of 7×5.
MAPS: dict[str, tuple[dict[str, Any], tuple[int, int] | None, str, str]] = {
    "lesa": ({}, (5, 7), "LESA was built for a map of 5×7, this one is 7×5", "for this image size"),
    "lesa_qr": ({}, (5, 7), "LESA was built for a map of 5×7, this one is 7×5", "for this image size"),
    "lesa_window": ({"window": 6}, None, "op.window=6: the window is larger than the map", "op.window=5"),
    "lsa": ({"region": {"size": 6}}, None, "op.region.size=6: the window is larger", "op.region.size=5"),
    "dynamic_filter": (
        {"region": "global"},
        (5, 7),
        "built for a map of 5×7, this one is 7×5",
        "for this image",
    ),
    "aggregated": (
        {"reduction": 6},
        None,
        "op.reduction=6 leaves no token of a map of 7×5",
        "op.reduction=5",
    ),
    "rasa": ({"reduction": 6}, None, "op.reduction=6 leaves no key of a map of 7×5", "op.reduction=5"),
    "san_pairwise": ({"kernel": 11}, None, "op.kernel=11 reflects 5 positions at each border", "up to 9"),
    "san_patchwise": ({"kernel": 11}, None, "the map has 7×5", "use a kernel up to 9"),
}


@pytest.mark.parametrize("name", MAPS)
def test_a_map_that_does_not_fit_is_refused(name: str) -> None:
    settings, resolution, problem, way_out = MAPS[name]
    operator = build(name, resolution=resolution, **settings)
    with pytest.raises(UserError) as error:
        operator(image(7, 5, dtype=torch.float32))
    assert problem in error.value.problem
    assert way_out in error.value.way_out


@pytest.mark.parametrize("name", ["lesa", "lesa_qr"])
def test_without_its_binary_term_lesa_takes_any_map(name: str) -> None:
    assert build(name, binary="none")(image(4, 3, dtype=torch.float32)).shape == (2, 4, 3, 8)


def fits(kernel: int, dilation: int, border: str, side: int) -> bool:
    """Whether every tap meets a position, or a kernel that papers use on any map is not dilated."""
    offsets = range(-(kernel // 2) * dilation, kernel // 2 * dilation + 1, dilation)
    pairs = [(at, at + offset) for at in range(side) for offset in offsets]
    met = {there - at for at, there in pairs if 0 <= there < side} == set(offsets)
    if border == "inside" and dilation > 1:
        return all(len(range(at % dilation, side, dilation)) >= kernel for at in range(dilation))
    return met or (dilation == 1 and kernel <= 7)


# Every operator with a sliding kernel: its name, and how its kernel, dilation and border are set.
SLIDING = [("dynamic_filter", "region"), ("na", "region"), ("dwconv", "region"), ("sasa", None)]


@pytest.mark.parametrize("border", ["zero", "mask", "inside"])
@pytest.mark.parametrize(("name", "axis"), SLIDING)
def test_a_kernel_is_refused_where_it_is_too_large_for_the_map(
    name: str, axis: str | None, border: str
) -> None:
    for side in (1, 2, 3, 4, 7, 14):
        for kernel in (1, 3, 5, 7, 9, 13, 15, 27, 29, 99):
            for dilation in (1, 2, 3, 4, 7, 13, 14, 50):
                where = {"kernel": kernel, "dilation": dilation, "border": border}
                given = {axis: where} if axis else where
                expected = fits(kernel, dilation, border, side)
                try:
                    ops.registry.check(
                        ops.configs.override(ops.spec(name).defaults, given),
                        ops.Slot(16, 2, (side + 1, side)),
                    )
                    found = True
                except UserError as error:
                    found = False
                    assert f"={kernel}" in error.problem
                    assert error.way_out
                assert found == expected, (side, kernel, dilation)


@pytest.mark.parametrize("name", OWN)
def test_a_configuration_has_all_settings(name: str) -> None:
    defaults = ops.spec(name).defaults
    with pytest.raises(UserError, match=r"begin with ops\.spec") as reason:
        ops.from_config({"name": name}, ops.Slot(32, 2, (14, 14)))
    assert all(setting in reason.value.problem for setting in defaults if setting not in ("name", "heads"))


@pytest.mark.parametrize("name", OWN)
def test_every_kernel_of_an_operator_of_its_own_is_checked_against_the_map(name: str) -> None:
    kernels = [setting for setting in ops.spec(name).defaults if "kernel" in setting]
    assert list(ops.spec(name).sliding) == kernels
    for setting in kernels:
        assert "14×14" in refused(name, **{setting: 99})


@pytest.mark.parametrize(("kernel", "dilation"), [(7, 50), (7, 4), (99, 1)])
def test_a_neighborhood_never_fills_up_a_map_beyond_need(kernel: int, dilation: int) -> None:
    """Where the map is seen first when it computes, too."""
    operator = ops.create("na", 24, heads=3, region={"kernel": kernel, "dilation": dilation})
    with pytest.raises(UserError, match="14×14"):
        operator(torch.empty(1, 14, 14, 24, device="meta"))
