"""Convolution, mixtures of kernels, DDF and CARAFE: against timm, brute force and laws."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers.cond_conv2d import CondConv2d
from torch import Tensor, nn

from ablate import costs, ops
from ablate.errors import UserError
from ablate.ops import configs

NAMES = ["conv", "ddf", "condconv", "dynamic_conv", "carafe"]


def build(
    name: str, dim: int = 12, *, host_heads: int = 3, stride: int = 1, **overrides: object
) -> nn.Module:
    """As `ops.create`, whose `heads` are the host's: here they are the operator's setting."""
    torch.manual_seed(0)
    config = configs.override(ops.spec(name).defaults, overrides)
    return ops.from_config(config, ops.Slot(dim, host_heads, resolution=(14, 14), stride=stride))


def make(name: str, dim: int = 12, **overrides: object) -> nn.Module:
    operator = build(name, dim, **overrides).double()
    for parameter in operator.parameters():  # far from the small initial values, so that every term counts
        nn.init.normal_(parameter, std=0.4)
    return operator


def image(size: tuple[int, int], dim: int = 12, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, *size, dim, dtype=torch.float64, generator=generator)


def brute_force(x: Tensor, filters: Tensor, kernel: int, stride: int) -> Tensor:
    """Σ_t F[i, c, t] · x[n(i, t), c] for filters (B, H', W', C, K²), x being 0 outside the map."""
    channels = x.shape[-1]
    patches = F.unfold(x.permute(0, 3, 1, 2), kernel, padding=kernel // 2, stride=stride)
    patches = patches.unflatten(1, (channels, -1)).movedim(-1, 1)  # (B, H'·W', C, K²)
    return (filters * patches.unflatten(1, filters.shape[1:3])).sum(-1)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def filter_norm(logits: Tensor) -> Tensor:
    return (logits - logits.mean(-1, keepdim=True)) / (logits.std(-1, keepdim=True) + 1e-10)


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(["mul", "add"]),
    st.sampled_from(["1", "1x", "C"]),
    st.sampled_from([1, 2]),
    st.sampled_from([3, 5]),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_ddf_is_its_formula(
    combination: str, heads: str, stride: int, kernel: int, size: tuple[int, int]
) -> None:
    operator = make("ddf", stride=stride, combination=combination, heads=heads, kernel=kernel)
    count = {"1": 1, "1x": 3, "C": 12}[heads]
    x = image(size)
    gain = math.sqrt(2) / kernel
    spatial = filter_norm(operator.spatial(x[:, ::stride, ::stride]).unflatten(-1, (count, -1))) * gain
    spatial = spatial.repeat_interleave(12 // count, dim=-2)  # neighbouring channels share a head
    hidden = operator.reduce(x.mean((1, 2))).relu()
    channel = filter_norm(operator.expand(hidden).view(2, 1, 1, 12, -1)) * operator.scale
    filters = spatial * channel if combination == "mul" else spatial + channel
    close(operator(x), brute_force(x, filters, kernel, stride))


def test_ddf_starts_as_the_authors_pack_does() -> None:
    operator = build("ddf", 192, heads="1x", kernel=5)
    assert operator.reduce.out_features == 38
    expected = {
        "scale": math.sqrt(2) / 5,
        "spatial.weight": (3 * 192) ** -0.5,
        "expand.weight": (3 * 38) ** -0.5,
    }
    for name, deviation in expected.items():
        assert abs(operator.get_parameter(name).std().item() / deviation - 1) < 0.05, name
    assert abs((operator.scale > 0).float().mean() - 0.5) < 0.03


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("groups", "count"), [("1", 1), ("1x", 3), ("C/2", 6), ("C", 12)])
def test_conv_is_a_convolution(groups: str, count: int, stride: int) -> None:
    operator = make("conv", groups=groups, stride=stride, kernel=5)
    reference = nn.Conv2d(12, 12, 5, stride, padding=2, groups=count).double()
    reference.load_state_dict(operator.convolution.state_dict())
    x = image((7, 9))
    close(operator(x), reference(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("groups", "count"), [("1", 1), ("1x", 3)])
def test_condconv_is_timms(groups: str, count: int, bias: bool, stride: int) -> None:
    operator = make("condconv", groups=groups, bias=bias, stride=stride, experts=5)
    reference = CondConv2d(12, 12, 3, stride, padding=1, groups=count, bias=bias, num_experts=5).double()
    reference.weight.data = operator.mixture.weight.data.flatten(1)
    if bias:
        reference.bias.data = operator.mixture.bias.data
    x = image((7, 9), batch=3)
    images = x.permute(0, 3, 1, 2)
    routing = operator.router(F.adaptive_avg_pool2d(images, 1).flatten(1)).sigmoid()
    close(operator(x), reference(images, routing).permute(0, 2, 3, 1))


@settings(max_examples=8, deadline=None)
@given(st.floats(0.05, 50), st.sampled_from(["1", "1x"]), st.integers(1, 5))
def test_a_dynamic_convolution_of_equal_kernels_is_a_convolution(
    temperature: float, groups: str, experts: int
) -> None:
    operator = make("dynamic_conv", temperature=temperature, groups=groups, experts=experts)
    for parameter in operator.mixture.parameters():
        parameter.data = parameter.data[:1].expand_as(parameter).clone()
    x = image((5, 6))
    weight, bias = operator.mixture.weight[0], operator.mixture.bias[0]
    expected = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=1, groups=12 // weight.shape[1])
    close(operator(x), expected.permute(0, 2, 3, 1))


def test_dynamic_conv_mixes_by_a_softmax_with_temperature() -> None:
    operator = make("dynamic_conv", temperature=0.7, squeeze=0.5)
    x = image((5, 6))
    logits = F.linear(x.mean((1, 2)), operator.reduce.weight).relu() @ operator.expand.weight.T
    mixture = ((logits + operator.expand.bias) / 0.7).exp()
    mixture = mixture / mixture.sum(-1, keepdim=True)
    for sample, shares, found in zip(x, mixture, operator(x), strict=True):
        weight = torch.einsum("e,e...->...", shares, operator.mixture.weight)
        expected = F.conv2d(sample.permute(2, 0, 1), weight, shares @ operator.mixture.bias, padding=1)
        close(found, expected.permute(1, 2, 0))


def test_mixtures_start_as_their_sources_do() -> None:
    fan_in = 64 * 9
    sigmoid, softmax = (build(name, 64) for name in ("condconv", "dynamic_conv"))
    assert abs(sigmoid.mixture.weight.std().item() * math.sqrt(3 * fan_in) - 1) < 0.02
    assert abs(softmax.mixture.weight.std().item() * math.sqrt(fan_in / 2) - 1) < 0.02
    assert 0 < sigmoid.mixture.bias.abs().max() <= fan_in**-0.5
    assert softmax.mixture.bias.abs().max() == softmax.expand.bias.abs().max() == 0
    assert softmax.reduce.out_features == 17
    x = torch.randn(2, 6, 6, 64)
    shares = (softmax.expand(softmax.reduce(x.mean((1, 2))).relu()) / softmax.temperature).softmax(-1)
    torch.testing.assert_close(shares, torch.full_like(shares, 0.25), rtol=0, atol=0.02)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("heads", "count"), [("1", 1), ("1x", 3)])
def test_carafe_is_its_formula_and_keeps_a_constant(heads: str, count: int, stride: int) -> None:
    operator = make("carafe", heads=heads, stride=stride, compressed=8)
    x = image((7, 9))
    compressed = operator.compress(x).permute(0, 3, 1, 2)
    logits = F.conv2d(compressed, operator.encode.weight, operator.encode.bias, stride, padding=1)
    masks = logits.permute(0, 2, 3, 1).unflatten(-1, (count, 25)).softmax(-1)
    close(operator(x), brute_force(x, masks.repeat_interleave(12 // count, dim=-2), 5, stride))
    constant = x[:1, :1, :1].expand(1, 9, 11, -1)
    edge = 2 // stride  # positions whose 5×5 neighbourhood leaves the map
    inside = operator(constant)[:, edge:-edge, edge:-edge]
    close(inside, constant[:, : inside.shape[1], : inside.shape[2]])


def test_carafe_starts_as_a_box_filter() -> None:
    operator = build("carafe", 16)
    x = torch.randn(1, 9, 9, 16)
    box = F.avg_pool2d(x.permute(0, 3, 1, 2), 5, stride=1, padding=2).permute(0, 2, 3, 1)
    torch.testing.assert_close(operator(x), box, rtol=0, atol=0.02)


# Parameters, multiply-accumulates per position and per image at 96 channels and 3 heads, by the formulas.
COSTS: dict[str, tuple[str, dict[str, object], int, int, int]] = {
    "ddf": ("ddf", {"kernel": 7}, 105_380, 14_112 - 4_704, 96 * 19 + 19 * 4_704),  # without its product
    "ddf, a filter per head": (
        "ddf",
        {"kernel": 7, "heads": "1x"},
        114_886,
        23_520 - 4_704,
        96 * 19 + 19 * 4_704,
    ),
    "conv": ("conv", {"kernel": 7}, 451_680, 96 * 96 * 49, 0),
    "conv in groups": ("conv", {"kernel": 7, "groups": "1x"}, 150_624, 96 * 32 * 49, 0),
    "condconv": ("condconv", {}, 4 * 83_040 + 97 * 4, 96 * 96 * 9, 4 * 83_040 + 96 * 4),
    "dynamic_conv": (
        "dynamic_conv",
        {"groups": "C"},
        4 * 960 + 96 * 25 + 26 * 4,
        96 * 9,
        4 * 960 + 96 * 25 + 25 * 4,
    ),
    "carafe": ("carafe", {}, 65 * 96 - 96 + 64 + 577 * 25, 64 * 96 + 576 * 25 + 25 * 96, 0),
}


@pytest.mark.parametrize("case", COSTS)
def test_costs_equal_the_formulas(case: str) -> None:
    name, overrides, parameters, per_position, per_image = COSTS[case]
    operator = build(name, 96, **overrides)
    assert costs.parameters(operator) == parameters
    assert costs.macs(operator, 2, 56, 56, 96) == 2 * (per_position * 56 * 56 + per_image)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_true(name: str) -> None:
    small = {"carafe": {"compressed": 3, "kernel": 3}, "ddf": {"squeeze": 0.5, "heads": "1x"}}
    forms = [{}, {"combination": "add", "stride": 2}] if name == "ddf" else [{"stride": 2}]
    for form in forms:
        operator = make(name, 4, host_heads=2, **small.get(name, {}), **form)
        x = image((3, 4), dim=4).requires_grad_()
        names, parameters = zip(*operator.named_parameters(), strict=True)

        def call(x: Tensor, *values: Tensor, operator: nn.Module = operator, names: tuple = names) -> Tensor:
            return torch.func.functional_call(operator, dict(zip(names, values, strict=True)), (x,))

        assert torch.autograd.gradcheck(call, (x, *parameters), fast_mode=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stride", [1, 2])
def test_lives_in_half_precision_on_the_meta_device_and_compiled(name: str, stride: int) -> None:
    torch.manual_seed(0)
    operator = ops.create(name, 32, heads=2, resolution=(14, 14), stride=stride)
    x = torch.randn(2, 7, 9, 32)
    y = operator(x)
    assert y.shape == (2, -(-7 // stride), -(-9 // stride), 32)
    compiled: Callable[[Tensor], Tensor] = torch.compile(operator, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), y)
    with torch.device("meta"):
        shadow = ops.create(name, 32, heads=2, resolution=(14, 14), stride=stride)
        assert shadow(torch.empty(2, 7, 9, 32)).shape == y.shape
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(operator(x).float(), y, rtol=0, atol=0.1)
    half = operator.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), y, rtol=0, atol=0.1)


REFUSED = {
    "even kernel": ("conv", {"kernel": 4}, "use 3 or 5"),
    "no kernel": ("carafe", {"kernel": 0}, "op.kernel=0 is not positive"),
    "even encoder": ("carafe", {"encoder_kernel": 2}, "op.encoder_kernel=2 is even"),
    "groups": ("conv", {"groups": 5}, "op.groups=5"),
    "groups of a mixture": ("condconv", {"groups": "C/7"}, "7 does not divide the 24 channels"),
    "heads": ("ddf", {"heads": 5}, "possible numbers of heads"),
    "no experts": ("dynamic_conv", {"experts": 0}, "use 1 or more"),
    "cold": ("dynamic_conv", {"temperature": 0}, "op.temperature=0.0 is not positive"),
    "squeezed to nothing": ("ddf", {"squeeze": 0.01}, "use a share above 1/24"),
    "one tap": ("ddf", {"kernel": 1}, "needs two taps"),
    "unknown combination": ("ddf", {"combination": "mull"}, "did you mean 'mul'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_way_out(case: str) -> None:
    name, overrides, expected = REFUSED[case]
    with pytest.raises(UserError, match=re.escape(expected)) as refused:
        build(name, 24, **overrides)
    assert refused.value.way_out
