"""Laws that hold for every input: what an operator *is* when its parameters take special values."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.small import small
from torch import nn

from ablate import ops
from ablate.ops.axes import TERMS
from ablate.ops.norms import NORMS

SLIDING = ["lsa_neighborhood", "dwconv", "dynamic_filter", "involution", "elsa", "elsa_equation"]
sizes = st.tuples(st.integers(3, 9), st.integers(3, 9))


def make(
    name: str, dim: int = 12, heads: int = 3, resolution: tuple[int, int] | None = None, **overrides: object
) -> nn.Module:
    torch.manual_seed(0)
    if name == "involution":
        overrides = {"channel": {"heads": "C/4"}, **overrides}
    operator = ops.create(name, dim, heads=heads, resolution=resolution, **overrides).double().eval()
    for parameter in operator.parameters():  # far from the small initial values, so that every term counts
        nn.init.normal_(parameter, std=0.4)
    return operator


def image(size: tuple[int, int], dim: int = 12) -> torch.Tensor:
    return torch.randn(2, *size, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@settings(max_examples=10, deadline=None)
@given(sizes, st.sampled_from([3, 5, 7]), st.integers(1, 2))
def test_static_weights_per_channel_are_a_depthwise_convolution(
    size: tuple[int, int], kernel: int, dilation: int
) -> None:
    operator = make("dwconv", region={"kernel": kernel, "dilation": dilation})
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(12, 12, kernel, padding=padding, dilation=dilation, groups=12).double()
    convolution.weight.data = operator.weights.filters.data.view(12, 1, kernel, kernel)
    convolution.bias.data = operator.bias.data
    x = image(size)
    torch.testing.assert_close(operator(x), convolution(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


@settings(max_examples=10, deadline=None)
@given(sizes, st.sampled_from(["identity", "filter_norm"]))
def test_a_dynamic_filter_with_constant_weights_is_a_depthwise_convolution(
    size: tuple[int, int], norm: str
) -> None:
    operator = make("dynamic_filter", norm=norm, region={"kernel": 3, "border": "zero"})
    nn.init.zeros_(operator.weights.expand.weight)
    filters = operator.norm(operator.weights.expand.bias.view(3, 9), None).repeat_interleave(4, 0)
    x = image(size)
    values = operator.value(x).permute(0, 3, 1, 2)
    convolved = F.conv2d(values, filters.view(12, 1, 3, 3), padding=1, groups=12).permute(0, 2, 3, 1)
    torch.testing.assert_close(operator(x), operator.output(convolved))


@pytest.mark.parametrize("name", ["elsa", "elsa_equation"])
def test_ghost_head_without_multiplication_adds_a_depthwise_convolution(name: str) -> None:
    ghost = make(name, channel={"ghost_lambda": 0, "ghost_gamma": 0.5, "output": "identity"})
    plain = make(name, channel={"ghost_lambda": 0, "ghost_gamma": 0.0, "output": "identity"})
    assert "ghost.add" not in plain.state_dict()
    plain.load_state_dict({k: v for k, v in ghost.state_dict().items() if k != "ghost.add"})
    x = image((6, 5))
    static = 0.5 * ghost.ghost.add.view(12, 1, 7, 7)
    convolved = F.conv2d(ghost.value(x).permute(0, 3, 1, 2), static, padding=3, groups=12).permute(0, 2, 3, 1)
    torch.testing.assert_close(ghost(x), plain(x) + convolved)


@pytest.mark.parametrize("region", ["window", "neighborhood", "neighborhood_zero", "global"])
def test_ghost_multiplication_of_ones_changes_nothing(region: str) -> None:
    common = {"region": region, "resolution": (7, 8)}
    ghost = make("lsa", channel={"ghost_lambda": 2}, **common)
    nn.init.constant_(ghost.ghost.multiply, -1.0)  # (-1)² = 1
    plain = make("lsa", **common)
    plain.load_state_dict({k: v for k, v in ghost.state_dict().items() if k != "ghost.multiply"})
    x = image((7, 8))
    torch.testing.assert_close(ghost(x), plain(x))


@pytest.mark.parametrize("weights", ["pairwise", "hadamard"])
def test_three_ways_to_see_the_whole_map(weights: str) -> None:
    """One window, a neighbourhood moved inside that is as large as the map, and the global region."""
    settings_of_weights = {"name": weights, "terms": list(TERMS)}
    common = {
        "weights": settings_of_weights,
        "resolution": (5, 5),
        "channel": {"ghost_lambda": 1, "ghost_gamma": 1.0},
    }
    whole = make("lsa", region="global", **common)
    window = make("lsa", region={"size": 5}, **common)
    inside = make("lsa", region={"name": "neighborhood", "kernel": 5, "border": "inside"}, **common)
    window.load_state_dict(whole.state_dict())
    inside.load_state_dict(whole.state_dict())
    x = image((5, 5))
    torch.testing.assert_close(window(x), whole(x))
    torch.testing.assert_close(inside(x), whole(x))


def test_masked_attention_ignores_what_lies_outside_and_zero_border_does_not() -> None:
    x = image((6, 6))
    total = {}
    for border in ("mask", "zero", "inside"):
        operator = make(
            "lsa_neighborhood",
            channel={"value": "identity", "output": "identity"},
            region={"kernel": 5, "border": border},
        )
        ones = torch.ones_like(x)
        filters = operator.norm(
            operator.weights(x, operator.region), operator.region.valid(x.shape, x.device)
        )
        total[border] = operator.region.aggregate(ones, filters, None, None, x.shape)
    torch.testing.assert_close(total["mask"], torch.ones_like(x))
    torch.testing.assert_close(total["inside"], torch.ones_like(x))
    torch.testing.assert_close(total["zero"][:, 2:4, 2:4], torch.ones_like(x)[:, 2:4, 2:4])
    assert (total["zero"][:, 0, 0] < 0.99).all()


@pytest.mark.parametrize("name", SLIDING)
def test_sliding_operators_are_translation_equivariant_away_from_borders(name: str) -> None:
    operator = make(name, region={"kernel": 3})
    wide = image((12, 11))
    reach = 2 if name.startswith("elsa") else 1  # ELSA's convolution reaches one tap, its sum another
    shifted = operator(wide[:, 3:, 2:])[:, reach:-reach, reach:-reach]
    torch.testing.assert_close(shifted, operator(wide)[:, 3 + reach : -reach, 2 + reach : -reach])


def test_windows_do_not_see_each_other_and_shifted_ones_see_their_own() -> None:
    x = image((8, 8))
    changed = x.clone()
    changed[:, :4, :4] += 1
    plain = make("lsa", region={"size": 4})
    difference = (plain(x) - plain(changed)).abs().sum((0, 3)) > 1e-9
    assert difference[:4, :4].all()
    assert not difference[4:].any()
    changed = x.clone()
    changed[:, 0, 0] += 1  # alone with the first two rows and columns: the roll's seam separates it
    for ghost in ({}, {"ghost_gamma": 1.0}, {"ghost_lambda": 1, "ghost_gamma": 1.0}):
        torch.manual_seed(0)
        shifted = ops.create("lsa", 12, heads=3, index=1, region={"size": 4}, channel=ghost).double()
        difference = (shifted(x) - shifted(changed)).abs().sum((0, 3)) > 1e-9
        assert difference[:2, :2].all()
        assert difference.sum() == 4


def test_elsa_starts_as_the_authors_code_does() -> None:
    """Query, key and value are one convolution there, with PyTorch's initialisation; the rest as in a ViT."""
    torch.manual_seed(0)
    operator = ops.create("elsa", 96, heads=3, channel={"ghost_lambda": 1})
    uniform = (1 / 3 / 96) ** 0.5  # standard deviation of U(±1/√C)
    expected = {
        "weights.query_key.weight": uniform,
        "value.weight": uniform,
        "output.weight": 0.02,
        "ghost.add": 0.02,
        "ghost.multiply": 1.0,
    }
    for name, deviation in expected.items():
        assert abs(operator.get_parameter(name).std().item() / deviation - 1) < 0.05, name
    assert operator.value.bias.abs().sum() > 0
    assert operator.output.bias.abs().sum() == 0


def test_half_precision_and_inference_mode_leave_no_trace() -> None:
    constant_logits = torch.zeros(2, 3, 3, 1, 9, dtype=torch.float16)
    assert NORMS["filter_norm"](constant_logits, None).isfinite().all()
    operator, x = ops.create("lsa_neighborhood", 8, heads=2), torch.randn(1, 13, 11, 8)
    with torch.inference_mode():
        operator(x)
    operator(x).sum().backward()


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(ops.names()), st.integers(1, 3))
def test_every_operator_keeps_shape_and_has_true_gradients(name: str, seed: int) -> None:
    operator = make(name, dim=8, heads=2, resolution=(3, 4), **small(name))
    x = torch.randn(
        1, 3, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed), requires_grad=True
    )
    assert operator(x).shape == x.shape
    assert torch.autograd.gradcheck(operator, (x,), fast_mode=True)
    names, parameters = zip(*operator.named_parameters(), strict=True)

    def call(*values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(operator, dict(zip(names, values, strict=True)), (x.detach(),))

    assert torch.autograd.gradcheck(call, parameters, fast_mode=True)
