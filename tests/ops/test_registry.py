"""What the registry promises: costs by the formulas, levels that work everywhere, new entries in one line."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tests.ops.small import PRESETS

from ablate import hosts, models, ops
from ablate.configuration import conf_dir
from ablate.data.catalogue import DATA_SETS
from ablate.errors import UserError, require_name
from ablate.models import Hybrid
from ablate.ops import axes, configs, costs, registry

# Parameters, multiply-accumulates per position and per image at 96 channels, 3 heads, 56×56, by the formulas.
# Element-wise products do not count: ELSA's q⊙k, DDF's product of filters, slide's biases.
DWCONV = {"channel": {"value": "linear", "output": "linear"}}
FORMULAS: list[tuple[str, dict[str, object], int, int, int]] = [
    ("lsa", {}, 37_755, 46_272, 0),
    ("lsa", {"region": "neighborhood_inside"}, 37_755, 46_272, 0),
    ("dinat", {}, 37_755, 46_272, 0),
    ("dinat", {"region": {"dilation": 8}}, 37_755, 46_272, 0),
    ("ls_conv", {}, 21 * 96**2 // 16 + 3156, 21 * 96**2 // 16 + 3216, 0),
    ("elsa", {"weights": {"group_width": 4}}, 57_907, 62_144 - 64, 0),
    ("dwconv", {}, 4_800, 4_704, 0),
    ("dwconv", DWCONV, 23_424, 23_136, 0),
    ("d_dwconv", {}, 120_048, 4_704, 24 * 96 + 24 * 4_704),
    ("i_d_dwconv", {}, 41_576, 44_640, 0),
    ("involution", {}, 9_702, 14_064, 0),
    ("conv", {"kernel": 7}, 451_680, 96 * 96 * 49, 0),
    ("conv", {"kernel": 7, "groups": "1x"}, 150_624, 96 * 32 * 49, 0),
    ("ddf", {"kernel": 7}, 105_380, 14_112 - 4_704, 96 * 19 + 19 * 4_704),
    ("ddf", {"kernel": 7, "heads": "1x"}, 114_886, 23_520 - 4_704, 96 * 19 + 19 * 4_704),
    ("condconv", {}, 4 * 83_040 + 97 * 4, 96 * 96 * 9, 4 * 83_040 + 96 * 4),
    ("dynamic_conv", {"groups": "C"}, 4 * 960 + 96 * 25 + 26 * 4, 96 * 9, 4 * 960 + 96 * 25 + 25 * 4),
    ("carafe", {}, 65 * 96 - 96 + 64 + 577 * 25, 64 * 96 + 576 * 25 + 25 * 96, 0),
    ("outlook", {}, 42_099, 26_208, 0),
    ("csa", {}, 115_827, 37_728, 0),
    # its two paths are one convolution here, and the fixed one's weights are no parameters
    ("slide", {}, 43_035 - 32 * 9 * 9, 69_696 - 2 * 96 * 81, 0),
    ("manhattan", {}, 4 * 96**2 + 30 * 96, 4 * 96**2 + 25 * 96 + 2 * 96 * (56 + 56), 0),
    ("manhattan", {"decomposed": False}, 39_744, 4 * 96**2 + 25 * 96 + 2 * 3136 * 96, 0),
    ("sasa", {}, 3 * 96**2 + 2 * 7 * 16, 3 * 96**2 + 7 * 96 + 2 * 49 * 96, 0),
    ("lesa", {"heads": 8}, 217_560, 6 * 96**2 + 9 * 96 * 12 + 7 * 96 * 3136 // 2, 0),
    # parameters of training; its multiply-accumulates are counted in evaluation, where it is one convolution
    ("dilated_reparam", {}, 27_072, 16_224, 0),
    # per image: keys and values of the pooled tokens, and half of the bias by distance, which a batch shares
    (
        "aggregated",
        {},
        50_844,
        5 * 96**2 + 27 * 96 + 2 * 49 * 96,
        2 * 96**2 * 49 + 512 * 5 * 104**2 // 2,
    ),
    # keys and values of 49 tokens per image, which are half of its heads' channels
    ("plg", {}, 37_248, 9_216 * 3 + 2 * 96 * 49, 49 * 2 * 48 * 96),
    ("rasa", {"reduction": 4}, 185_568, 138_048, 0),
    # its published reduction of the first stage, by 8, to 49 keys
    ("rasa", {}, 4 * 96**2 + 13 * 96 + 64 * 96**2, 2 * (3 * 96**2 + 27 * 96 + 2 * 96**2 // 64 + 98 * 96), 0),
    ("focal", {}, 40_803, 40_800 - 4 * 96, 0),
    # without the block's 3×3 convolution and layer norm; multiply-accumulates of evaluation
    ("contmix", {"heads": 4}, 96_156 - 12 * 96, 108_248 - 9 * 96, 49 * 96**2 // 2 + 2 * 96 * 16),
    ("dcnv3", {}, 35_490, 39_168, 0),
    ("dcnv3", {"centre_scale": True}, 35_490 + 6 * 97, 39_168 + 6 * 96, 0),
    ("dcnv4", {}, 34_824, 38_880, 0),
    ("dcnv4", {"bias": True, "depthwise": True}, 34_824 + 96 + 960, 38_880 + 864, 0),
    ("focal", {"levels": 3, "norm": True}, 40_803 + 97 + 49 * 96 + 192, 40_800 - 4 * 96 + 50 * 96, 0),
]


@pytest.mark.parametrize(
    ("name", "overrides", "parameters", "per_position", "per_image"),
    [pytest.param(*row, id=f"{row[0]} {row[1]}" if row[1] else row[0]) for row in FORMULAS],
)
def test_costs_equal_the_formulas(
    name: str, overrides: dict[str, object], parameters: int, per_position: int, per_image: int
) -> None:
    operator = ops.create(name, 96, heads=3, resolution=(56, 56), settings=overrides)
    assert costs.parameters(operator) == parameters
    assert costs.macs(operator, 2, 56, 56, 96) == 2 * (per_position * 56 * 56 + per_image)


def test_qna_has_the_costs_of_its_formula() -> None:
    """The published sums, less K²C for each query beyond the first, of which the filters are mixed before."""
    width, heads, queries, taps, positions = 96, 12, 2, 9, 56 * 56
    operator = ops.create("qna", width, heads=3, resolution=(56, 56))
    assert costs.parameters(operator) == queries * width + 3 * width**2 + 2 * taps * queries * heads
    published = 2 * width**2 + queries * heads * width + queries * taps * (width + heads)
    mixed_before = (queries - 1) * taps * width
    folded = queries * width**2  # q̂Wᵀ, once per call
    assert costs.macs(operator, 1, 56, 56, width) == (published - mixed_before) * positions + folded


@pytest.mark.parametrize(
    ("width", "heads", "kernel", "side", "block"), [(96, 3, 3, 56, 8), (384, 12, 7, 14, 2)]
)
def test_attn_conv_has_the_costs_of_its_formula(
    width: int, heads: int, kernel: int, side: int, block: int
) -> None:
    """Of ⌈heads / 2⌉ heads with c channels and ⌊heads / 2⌋ pooled ones with g; two products do not count."""
    settings = {"kernel": kernel}
    operator = ops.create("attn_conv", width, heads=heads, resolution=(side, side), settings=settings)
    g = heads // 2 * width // heads
    c, tokens = width - g, (side // block) ** 2
    first = 3 * width * c + 3 * c + 3 * c * (kernel**2 + 1) + 2 * c**2 + 2 * c
    second = 3 * width * g + 3 * g
    assert costs.parameters(operator) == first + second + width**2 + width
    per_position = 3 * width * c + 3 * c * kernel**2 + 2 * c**2 + width * g + 2 * g * tokens + width**2
    per_image = 2 * width * g * tokens
    assert costs.macs(operator, 1, side, side, width) == per_position * side**2 + per_image


@pytest.mark.parametrize(("name", "kernel"), [("san_pairwise", 7), ("san_patchwise", 3)])
def test_san_has_the_parameters_of_its_formula(name: str, kernel: int) -> None:
    width, relation, filters, taps = 96, 24, 12, kernel**2
    common = 2 * (width * relation + relation) + width * width + width
    network = (
        2 * (relation + 2) + (relation + 2) * relation + 2 * relation + relation * filters + filters + 6
        if name == "san_pairwise"
        else 2 * relation * (taps + 1)
        + relation * (taps + 1) * filters
        + 2 * filters
        + taps * filters**2
        + taps * filters
    )
    operator = ops.create(name, width, heads=3, settings={"kernel": kernel})
    assert costs.parameters(operator) == common + network


@pytest.mark.parametrize("name", PRESETS)
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
    weights = ops.spec(name).config.weights
    expected = {"elsa": in_windows, "lsa": {("weights", "hadamard_conv")}}.get(name, set())
    if ops.spec(name).defaults["norm"]["name"] == "softmax":
        expected = expected | {("weights", "hadamard_gate")}
    if isinstance(weights, (axes.PairwiseConfig, axes.HadamardConfig, axes.LearnedQueryConfig)):
        expected = expected | {("region", "sampled")}  # keys lie at whole positions
    elif not isinstance(weights, (axes.LinearConfig, axes.StaticConfig)):
        expected = expected | {("region", "window_and_pooled")}
    assert refused == expected


def test_heads_in_every_form() -> None:
    forms = {"1": 1, "1x": 3, "2x": 6, "4": 4, "C": 24, "C/8": 3}
    assert {form: axes.resolve_heads(form, 24, 3) for form in forms} == forms


def test_levels_on_disk_are_the_levels_in_code() -> None:
    for axis in ("weights", "norm", "region"):
        on_disk = {configs.level(axis, level)["name"] for level in configs.levels(axis)}
        assert on_disk == set(axes.LEVELS[axis])
    assert {path.stem for path in (conf_dir() / "op").glob("*.yaml")} <= set(ops.names())


@pytest.fixture
def restored() -> Iterator[None]:
    """The registry as it was."""
    before = dict(registry._entries())
    yield
    registry._ENTRIES.clear()
    registry._ENTRIES.update(before)


@pytest.mark.usefixtures("restored")
def test_an_operator_of_its_own_gets_its_signature_as_settings() -> None:
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


@pytest.mark.parametrize(
    "name", ["../up", "<b>bold</b>", "a b", "", "a.b", "a,b", "${x}", "null", "Nan", "7up", "x" * 65, None]
)
def test_a_name_that_no_command_could_choose_is_refused_at_registration(name: object) -> None:
    about = {"paper": "", "year": 0, "channel_setting": "", "spatial_processing": ""}
    hybrid = Hybrid(name, "resnet50", torch.nn.Identity, "")  # type: ignore[arg-type]
    for entry in (lambda: ops.register(name, **about)(torch.nn.ReLU), lambda: models.register(hybrid)):
        with pytest.raises(UserError, match="cannot be registered under the name"):
            entry()
    assert name not in ops.names()


def test_every_registry_keeps_the_rule_for_names() -> None:
    for name in (*ops.names(), *hosts.names(), *models.names(), *DATA_SETS):
        require_name("an entry", name)
