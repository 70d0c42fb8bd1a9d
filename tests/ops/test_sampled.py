"""The region `sampled`: the neighborhood where nothing is moved, its definition where all is."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.definition import block_means
from tests.ops.small import build, close, drawn, image
from torch import Tensor, nn

from ablate import ops
from ablate.ops import configs, costs
from ablate.ops.axes.norms import NORMS
from ablate.testing.checks import CHECKS
from ablate.testing.subject import Subject

sizes = st.tuples(st.integers(2, 7), st.integers(2, 7))
WEIGHTS: dict[str, Any] = {
    "linear": "linear",
    "bottleneck": "bottleneck",
    "static": "static",
    "pooled": "pooled",
    "hadamard_conv": {"name": "hadamard_conv", "group_width": 2},
    "pairwise": {"name": "pairwise", "terms": ["query_position", "bias"]},
    "hadamard": {"name": "hadamard", "terms": ["query_position", "bias"]},
}
GHOSTS = [(0, 0.0), (0, 1.0), (1, 0.5)]


def point(weights: str, region: dict[str, Any], ghost: tuple[int, float], **more: Any) -> nn.Module:
    power, factor = ghost
    channel = {"heads": more.pop("heads", "1x"), "ghost_lambda": power, "ghost_gamma": factor}
    return build("lsa", resolution=None, weights=WEIGHTS[weights], region=region, channel=channel, **more)


@settings(max_examples=40, deadline=None)
@given(
    sizes,
    st.sampled_from(sorted(WEIGHTS)),
    st.sampled_from(sorted(NORMS)),
    st.sampled_from(GHOSTS),
    st.sampled_from(["1", "1x", "C"]),
    st.sampled_from([1, 2, 8]),
    st.integers(1, 2),
)
def test_without_offsets_it_is_the_neighborhood_with_border_zero(
    size: tuple, weights: str, norm: str, ghost: tuple, heads: str, groups: int, stride: int
) -> None:
    common = {"norm": norm, "heads": heads, "stride": stride}
    sliding = {"kernel": 3, "dilation": 1}
    moved = point(weights, {"name": "sampled", **sliding, "groups": groups}, ghost, **common)
    plain = drawn(point(weights, {"name": "neighborhood", **sliding, "border": "zero"}, ghost, **common))
    begun = moved.state_dict()
    assert not begun.pop("region.weight").any()
    assert not begun.pop("region.bias").any()
    assert begun.keys() == plain.state_dict().keys()
    moved.double().load_state_dict(plain.state_dict(), strict=False)
    close(moved(image(*size)), plain(image(*size)))


def defined(operator: nn.Module, x: Tensor, stride: int) -> Tensor:
    """Sample by sample from every position of the map, with a filter for each channel."""
    region, values = operator.region, operator.value(x)
    _, height, width, channels = values.shape
    kernel, taps = region.kernel, region.taps
    filters = operator.norm(operator.weights(x, region), None)
    multiply, add = operator.ghost()
    offsets = (block_means(x, stride) @ region.weight.T + region.bias).unflatten(-1, (-1, taps, 2))
    rows, columns, found = torch.arange(height), torch.arange(width), []
    for y, z in itertools.product(range(0, height, stride), range(0, width, stride)):
        here = min(y // stride, filters.shape[1] - 1), min(z // stride, filters.shape[2] - 1)
        total = torch.zeros_like(values[:, 0, 0])
        for tap, (down, right) in enumerate(itertools.product(range(kernel), repeat=2)):
            moved = offsets[:, y // stride, z // stride, :, tap]
            moved = moved.repeat_interleave(channels // moved.shape[1], 1)  # (B, C, 2)
            row = y + region.dilation * (down - kernel // 2) + moved[..., 0, None]
            column = z + region.dilation * (right - kernel // 2) + moved[..., 1, None]
            hats = (1 - (row - rows).abs()).relu(), (1 - (column - columns).abs()).relu()
            weight = filters[:, here[0], here[1], :, tap]
            weight = weight.repeat_interleave(channels // weight.shape[1], 1)
            weight = weight if multiply is None else weight * multiply[:, tap]
            weight = weight if add is None else weight + add[:, tap]
            total = total + weight * torch.einsum("bch,bcw,bhwc->bc", *hats, values)
        found.append(total)
    return operator.output(torch.stack(found, 1).unflatten(1, (-(-height // stride), -1)))


@settings(max_examples=25, deadline=None)
@given(
    sizes,
    st.sampled_from(["linear", "static", "bottleneck", "pooled"]),
    st.sampled_from(GHOSTS),
    st.sampled_from(["1x", "C"]),
    st.sampled_from([1, 2, 8]),
    st.integers(1, 2),
    st.integers(1, 2),
)
def test_with_offsets_it_is_its_definition(
    size: tuple, weights: str, ghost: tuple, heads: str, groups: int, stride: int, dilation: int
) -> None:
    region = {"name": "sampled", "kernel": 3, "dilation": dilation, "groups": groups}
    operator = drawn(point(weights, region, ghost, heads=heads, stride=stride)).eval()
    close(operator(image(*size)), defined(operator, image(*size), stride))


@pytest.mark.parametrize(
    "check", ["gradcheck", "gradients", "autocast", "half precision", "compile", "export"]
)
@pytest.mark.parametrize("ghost", GHOSTS[:2])
def test_it_keeps_the_promises_of_every_entry(check: str, ghost: tuple[int, float]) -> None:
    settings = {"region": "sampled", "channel": {"ghost_gamma": ghost[1]}}
    size = {"dim": 4, "resolution": (3, 4)} if check == "gradcheck" else {"dim": 32, "resolution": (5, 6)}
    CHECKS[check](Subject("dynamic_filter", settings, **size))


def test_it_draws_no_random_number_and_keeps_no_map_per_tap() -> None:
    torch.manual_seed(0)
    plain = ops.create("dynamic_filter", 32, heads=2, region={"name": "neighborhood", "kernel": 3})
    torch.manual_seed(0)
    moved = ops.create("dynamic_filter", 32, heads=2, region="sampled")
    for name, value in plain.state_dict().items():
        assert torch.equal(moved.state_dict()[name], value)
    assert costs.parameters(moved) - costs.parameters(plain) == 18 * 33
    x = torch.randn(1, 8, 8, 32)
    for ghost in (0.0, 1.0):
        settings = configs.override(
            ops.spec("dynamic_filter").defaults, {"region": "sampled", "channel": {"ghost_gamma": ghost}}
        )
        operator, kept = ops.from_config(settings, ops.Slot(32, 2, (8, 8))), {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, kept=kept: kept.setdefault(t.untyped_storage().data_ptr(), t), lambda t: t
        ):
            operator(x)
        held = sum(t.untyped_storage().nbytes() for t in kept.values() if t.data_ptr() != x.data_ptr())
        assert held < 5 * x.nbytes, f"{held / x.nbytes:.1f} maps"
