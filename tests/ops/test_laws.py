"""Laws that hold for every input: what an operator *is* when its parameters take special values."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.small import WIDTHS, build, close, drawn, image
from torch import Tensor, nn

from ablate import ops
from ablate.ops.axes import TERMS, regions
from ablate.ops.axes.norms import NORMS

sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))
kernels = st.sampled_from([3, 5, 7])


def depthwise(x: Tensor, filters: Tensor, dilation: int = 1) -> Tensor:
    """(B, H, W, C) with one filter per channel, (C, K²)."""
    kernel = int(filters.shape[1] ** 0.5)
    weight = filters.view(-1, 1, kernel, kernel)
    padding = dilation * (kernel // 2)
    images = F.conv2d(x.permute(0, 3, 1, 2), weight, None, 1, padding, dilation, groups=len(weight))
    return images.permute(0, 2, 3, 1)


@settings(max_examples=15, deadline=None)
@given(sizes, kernels, st.integers(1, 2), st.sampled_from(sorted(NORMS)), st.sampled_from(["1x", "C"]))
def test_a_dynamic_filter_with_constant_weights_is_a_depthwise_convolution(
    size: tuple[int, int], kernel: int, dilation: int, norm: str, heads: str
) -> None:
    region = {"kernel": kernel, "dilation": dilation, "border": "zero"}
    channel = {"heads": heads}
    operator = drawn(build("dynamic_filter", resolution=None, norm=norm, region=region, channel=channel))
    nn.init.zeros_(operator.weights.expand.weight)
    by_head = NORMS[norm](operator.weights.expand.bias.view(-1, kernel**2), None)
    x = image(*size)
    convolved = depthwise(operator.value(x), by_head.repeat_interleave(8 // len(by_head), 0), dilation)
    close(operator(x), operator.output(convolved))


@settings(max_examples=15, deadline=None)
@given(sizes, kernels, st.sampled_from(["elsa", "elsa_equation", "lsa_neighborhood", "dynamic_filter"]))
def test_lambda_0_gamma_1_is_the_dynamic_filter_plus_a_depthwise_convolution(
    size: tuple[int, int], kernel: int, name: str
) -> None:
    channel = {"ghost_lambda": 0, "ghost_gamma": 1.0, "output": "identity"}
    ghost = drawn(build(name, region={"kernel": kernel}, channel=channel))
    plain = build(name, region={"kernel": kernel}, channel={**channel, "ghost_gamma": 0.0}).double()
    plain.load_state_dict({key: value for key, value in ghost.state_dict().items() if key != "ghost.add"})
    x = image(*size)
    close(ghost(x), plain(x) + depthwise(ghost.value(x), ghost.ghost.add))


@settings(max_examples=10, deadline=None)
@given(st.tuples(st.integers(1, 6), st.integers(1, 6)), st.sampled_from([1, 2, 8]))
def test_lambda_0_gamma_0_is_plain_hadamard_attention(size: tuple[int, int], heads: int) -> None:
    """On the whole map, in matrices: softmax( (u r^k)_ij + (r^q u)_ij + r^b_ij ) v."""
    height, width = size
    channel = {"ghost_lambda": 0, "ghost_gamma": 0.0, "heads": heads}
    operator = drawn(build("elsa_equation", resolution=size, region="global", channel=channel))
    assert not list(operator.ghost.parameters())
    x, tables = image(*size), operator.weights.position
    query, key = operator.weights.query_key(x).flatten(1, 2).unflatten(-1, (2, heads, -1)).unbind(2)
    product, value = query * key, operator.value(x).flatten(1, 2).unflatten(-1, (heads, -1))
    row, column = torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)
    down, right = row[None] - row[:, None] + height - 1, column[None] - column[:, None] + width - 1
    offset = down * (2 * width - 1) + right  # (i, j): of j − i
    logits = (
        torch.einsum("bigd,gijd->bgij", product, tables.query_position[:, offset])
        + torch.einsum("bjgd,gijd->bgij", product, tables.key_position[:, offset])
        + tables.relative_position_bias_table[:, offset]
    )
    y = torch.einsum("bgij,bjgd->bigd", logits.softmax(-1), value).flatten(2).unflatten(1, size)
    close(operator(x), operator.output(y))


@settings(max_examples=10, deadline=None)
@given(sizes, st.integers(1, 3), st.sampled_from(["window", "neighborhood", "neighborhood_zero", "global"]))
def test_ghost_tables_of_ones_and_zeros_change_nothing(
    size: tuple[int, int], power: int, region: str
) -> None:
    size = (max(size[0], 7), max(size[1], 7))
    plain = drawn(build("lsa", resolution=size, region=region))
    ghost = build("lsa", resolution=size, region=region, channel={"ghost_lambda": power, "ghost_gamma": 1.0})
    nn.init.constant_(ghost.ghost.multiply, -1.0 if power == 2 else 1.0)
    nn.init.zeros_(ghost.ghost.add)
    ghost.double().load_state_dict(plain.state_dict(), strict=False)
    x = image(*size)
    close(ghost(x), plain(x))


@settings(max_examples=10, deadline=None)
@given(sizes)
def test_a_filter_per_channel_of_one_tap_without_norm_is_a_pointwise_product(size: tuple[int, int]) -> None:
    point = {"norm": "identity", "region": {"name": "neighborhood", "kernel": 1}, "channel": {"heads": "C"}}
    x = image(*size)
    filters = drawn(build("dynamic_filter", **point))
    close(filters(x), filters.output(filters.weights.expand(x) * filters.value(x)))
    pairs = drawn(build("lsa", **point, weights={"terms": ["content"]}))
    query, key = pairs.weights.query_key(x).chunk(2, -1)
    close(pairs(x), pairs.output(query * key * pairs.value(x)))


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from([1, 3, 5, 7]),
    st.sampled_from(["pairwise", "hadamard"]),
    st.lists(st.sampled_from(TERMS), min_size=1, unique=True),
)
def test_three_ways_to_see_the_whole_map(side: int, weights: str, terms: list[str]) -> None:
    """One window, a neighborhood moved inside that is as large as the map, and the global region."""
    common = {
        "weights": {"name": weights, "terms": terms},
        "resolution": (side, side),
        "channel": {"ghost_lambda": 1, "ghost_gamma": 1.0},
    }
    whole = drawn(build("lsa", region="global", **common))
    window = build("lsa", region={"size": side}, **common).double()
    inside = build(
        "lsa", region={"name": "neighborhood", "kernel": side, "border": "inside"}, **common
    ).double()
    window.load_state_dict(whole.state_dict())
    inside.load_state_dict(whole.state_dict())
    x = image(side, side)
    close(window(x), whole(x))
    close(inside(x), whole(x))


@settings(max_examples=8, deadline=None)
@given(st.sampled_from([1, 3]), st.integers(1, 3))
def test_dinat_in_odd_blocks_attends_to_whole_residue_classes(kernel: int, dilation: int) -> None:
    """δ² dense attentions, each over every δ-th row and column, if K · δ is the side of the map."""
    size = (kernel * dilation, kernel * dilation)
    odd = drawn(build("dinat", resolution=size, index=1, region={"kernel": kernel}))
    dense = build("na", resolution=size, region={"kernel": kernel}).double()
    dense.load_state_dict(odd.state_dict())
    even = build("dinat", resolution=size, region={"kernel": kernel}).double()
    even.load_state_dict(odd.state_dict())
    x = image(*size)
    found = odd(x)
    for row in range(dilation):
        for column in range(dilation):
            part = (slice(None), slice(row, None, dilation), slice(column, None, dilation))
            close(found[part], dense(x[part]))
    close(even(x), dense(x))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fusion", ["gated", "sum", "static"])
def test_lesa_in_windows_is_lesa_on_a_map_of_one_window(fusion: str, training: bool) -> None:
    whole = drawn(build("lesa", resolution=(4, 4), positions="two_dimensional", fusion=fusion))
    window = build("lesa_window", window=4, resolution=(4, 4), index=1, fusion=fusion).double()
    window.load_state_dict(whole.state_dict())
    x = image(4, 4, batch=3)
    close(window.train(training)(x), whole.train(training)(x))


def test_masked_attention_ignores_what_lies_outside_and_zero_border_does_not() -> None:
    x = image(6, 6)
    total = {}
    for border in ("mask", "zero", "inside"):
        operator = drawn(build("lsa_neighborhood", region={"kernel": 5, "border": border}))
        valid = operator.region.valid(x.shape, x.device)
        filters = operator.norm(operator.weights(x, operator.region), valid)
        total[border] = operator.region.aggregate(torch.ones_like(x), filters, None, None, x.shape)
    close(total["mask"], torch.ones_like(x))
    close(total["inside"], torch.ones_like(x))
    close(total["zero"][:, 2:4, 2:4], torch.ones_like(x)[:, 2:4, 2:4])
    assert (total["zero"][:, 0, 0] < 0.99).all()


def test_windows_do_not_see_each_other_and_shifted_ones_see_their_own() -> None:
    x = image(8, 8)
    changed = x.clone()
    changed[:, :4, :4] += 1
    plain = drawn(build("lsa", region={"size": 4}, resolution=(8, 8)))
    difference = (plain(x) - plain(changed)).abs().sum((0, 3)) > 1e-9
    assert difference[:4, :4].all()
    assert not difference[4:].any()
    changed = x.clone()
    changed[:, 0, 0] += 1  # alone with the first two rows and columns: the roll's seam separates it
    for ghost in ({}, {"ghost_gamma": 1.0}, {"ghost_lambda": 1, "ghost_gamma": 1.0}):
        shifted = drawn(build("lsa", index=1, region={"size": 4}, resolution=(8, 8), channel=ghost))
        difference = (shifted(x) - shifted(changed)).abs().sum((0, 3)) > 1e-9
        assert difference[:2, :2].all()
        assert difference.sum() == 4


@settings(max_examples=10, deadline=None)
@given(sizes, st.floats(0.05, 50), st.sampled_from(["1", "1x"]), st.integers(1, 5))
def test_a_dynamic_convolution_of_equal_kernels_is_a_convolution(
    size: tuple[int, int], temperature: float, groups: str, experts: int
) -> None:
    operator = drawn(build("dynamic_conv", temperature=temperature, groups=groups, experts=experts))
    for parameter in operator.mixture.parameters():
        parameter.data = parameter.data[:1].expand_as(parameter).clone()
    x, weight, bias = image(*size), operator.mixture.weight[0], operator.mixture.bias[0]
    expected = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=1, groups=8 // weight.shape[1])
    close(operator(x), expected.permute(0, 2, 3, 1))


@pytest.mark.parametrize("stride", [1, 2])
def test_carafe_keeps_a_constant_inside(stride: int) -> None:
    operator = drawn(build("carafe", kernel=5, stride=stride, heads="1x"))
    constant = image(1, 1).expand(-1, 9, 11, -1)
    edge = 2 // stride  # positions whose 5×5 neighborhood leaves the map
    inside = operator(constant)[:, edge:-edge, edge:-edge]
    close(inside, constant[:, : inside.shape[1], : inside.shape[2]])


def test_filter_norm_of_constant_weights_is_finite_in_half_precision() -> None:
    assert NORMS["filter_norm"](torch.zeros(2, 3, 3, 1, 9, dtype=torch.float16), None).isfinite().all()


def test_inference_mode_leaves_no_trace_in_what_is_cached() -> None:
    for name in ops.names():
        operator = build(name, resolution=(6, 9), index=1)
        x = image(6, 9, dim=WIDTHS.get(name, 8), dtype=torch.float32)
        with torch.inference_mode():
            operator(x)
        operator(x).sum().backward()


@pytest.mark.parametrize("side", [8, 10])
@pytest.mark.parametrize("region", ["window", "global"])
def test_windows_attend_alike_in_one_pass_and_in_parts(
    region: str, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs on a GPU and what runs on a CPU; windows shifted, and not tiling the map of ten."""
    torch.manual_seed(0)
    level = {"size": 4} if region == "window" else region
    operator = ops.create("lsa", 32, heads=2, resolution=(side, side), index=1, region=level).double()
    x = torch.randn(2, side, side, 32, dtype=torch.float64, requires_grad=True)
    found = []
    for at_once in (False, True):
        monkeypatch.setattr(regions.AllPairsRegion, "attends", lambda *_, at_once=at_once: at_once)
        y = operator(x)
        found.append((y, *torch.autograd.grad(y.square().sum(), (x, *operator.parameters()))))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
