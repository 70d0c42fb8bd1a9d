"""Laws of QnA, CloFormer, RMT, LS convolution, and of the levels that came with them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.small import build, close, drawn, image
from tests.ops.test_laws import depthwise, kernels, sizes
from torch import Tensor, nn


@settings(max_examples=10, deadline=None)
@given(sizes, st.sampled_from(["1x", "C"]), st.integers(1, 3))
def test_qna_of_equal_keys_is_a_depthwise_convolution_renormalized_at_the_border(
    size: tuple[int, int], heads: str, queries: int
) -> None:
    """Numerator and denominator are two convolutions with e^(r^b), as in the paper."""
    operator = drawn(build("qna", channel={"heads": heads}, weights={"queries": queries}))
    nn.init.zeros_(operator.weights.key.weight)
    x, weights = image(*size), operator.weights
    value, inside = operator.value(x), torch.ones_like(x)
    expected = torch.zeros_like(x)
    for bias, gain in zip(
        weights.relative_position_bias_table.exp().chunk(queries), weights.gains.chunk(queries), strict=True
    ):
        share = bias.repeat_interleave(8 // len(bias), 0)
        mixed = (bias * gain).repeat_interleave(8 // len(bias), 0)
        expected = expected + depthwise(value, mixed) / depthwise(inside, share)
    close(operator(x), operator.output(expected))


@pytest.mark.parametrize("norm", ["softmax", "softmax_decay", "identity"])
@pytest.mark.parametrize("region", ["window", "neighborhood", "neighborhood_inside", "global"])
def test_qna_computes_large_filters_again_instead_of_keeping_them(region: str, norm: str) -> None:
    kept = []

    def numbers(tensor: Tensor) -> Tensor:
        kept[-1] += tensor.numel()
        return tensor

    channel = {"ghost_lambda": 1, "ghost_gamma": 0.5}
    operator = drawn(build("qna", resolution=(8, 9), index=1, region=region, norm=norm, channel=channel))
    assert operator.recomputes
    x, found = image(8, 9).requires_grad_(), []
    for operator.recomputes in (True, False):
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(numbers, lambda tensor: tensor):
            y = operator(x)
        found.append((y, *torch.autograd.grad(y.square().sum(), (x, *operator.parameters()))))
    for one, other in zip(*found, strict=True):
        close(one, other)
    weights = sum(parameter.numel() for parameter in operator.parameters())
    filters = x.numel() // 8 * operator.weights.generated * operator.region.taps
    assert kept[0] < 16 * x.numel() + 4 * weights < kept[1]
    assert kept[1] > filters


@pytest.mark.parametrize("border", ["zero", "mask", "inside"])
def test_qna_is_the_ratio_of_two_convolutions_of_exponentials(border: str) -> None:
    """At positions whose neighborhood is inside the map, whatever the border does elsewhere."""
    operator, x = drawn(build("qna", region={"border": border})), image(6, 7)
    weights, value = operator.weights, operator.value(x)
    scores = weights.scores(x).exp()  # (B, H, W, queries · heads)
    width = 8 // operator.heads
    centre = slice(None) if border != "inside" else [6, 7, 8, 11, 12, 13, 16, 17, 18]
    found = 0
    for query in range(weights.queries):
        own = slice(query * operator.heads, (query + 1) * operator.heads)
        share = weights.relative_position_bias_table[own, centre].exp()
        mixed = share * weights.gains[own, centre]
        exponential = scores[..., own].repeat_interleave(width, -1)
        numerator = depthwise(exponential * value, mixed.repeat_interleave(width, 0))
        found = found + numerator / depthwise(exponential, share.repeat_interleave(width, 0))
    inner = (slice(None), slice(1, -1), slice(1, -1))
    close(operator(x)[inner], operator.output(found)[inner])


@pytest.mark.parametrize("weights", ["linear", "pooled", "static"])
def test_group_norm_is_that_of_pytorch_with_a_group_for_each_filter(weights: str) -> None:
    operator = drawn(build("dynamic_filter", weights=weights, norm="group_norm", region={"border": "zero"}))
    x = image(6, 7)
    logits = operator.weights(x, operator.region)  # (B, H, W, G, T), or what broadcasts to it
    norm, channels_first = operator.norm, logits.permute(0, 3, 4, 1, 2).flatten(1, 2)
    expected = F.group_norm(channels_first, 2, norm.weight.flatten(), norm.bias.flatten(), 1e-5)
    close(norm(logits, None), expected.unflatten(1, (2, -1)).permute(0, 3, 4, 1, 2))


def test_taps_that_do_not_count_enter_no_statistic_of_group_norm() -> None:
    operator, x = drawn(build("dynamic_filter", norm="group_norm", region={"border": "mask"})), image(6, 7)
    logits, valid = operator.weights(x, operator.region), operator.region.valid(x.shape, x.device)
    filters = operator.norm(logits, valid)
    close(operator.norm(logits.masked_fill(~valid, 9.0), valid), filters)
    assert not filters.masked_fill(valid, 0).any()


@settings(max_examples=10, deadline=None)
@given(sizes, kernels, st.sampled_from([1, 2, 4]))
def test_attn_conv_alone_is_a_point_of_the_equation(size: tuple[int, int], kernel: int, heads: int) -> None:
    """With a head per channel, tanh, λ=1, γ=0: F_ij[c] = o_Δ[c] · tanh(A_i[c]); its own bias is zero."""
    own = drawn(build("attn_conv", host_heads=heads, branches="attn_conv", kernel=kernel))
    point = build(
        "dwconv",
        host_heads=heads,
        channel={"ghost_lambda": 1, "value": "linear", "output": "linear", "bias": False},
        weights={"name": "hadamard_gate", "kernel": kernel},
        norm="tanh",
        region={"kernel": kernel},
    ).double()
    branch, given = own.convolution, own.state_dict()
    branch.look.bias.data[16:] = 0
    for ours, theirs in {"query_key_value": "query_key", "look": "look"}.items():
        for part in ("weight", "bias"):
            tensor = given[f"convolution.{ours}.{part}"]
            point.get_parameter(f"weights.{theirs}.{part}").data = tensor[:16]
    point.value.load_state_dict({k: v[16:] for k, v in branch.query_key_value.state_dict().items()})
    point.ghost.multiply.data = branch.look.weight[16:].detach().flatten(1)
    point.weights.gate.load_state_dict(branch.gate.state_dict())
    point.output.load_state_dict(own.output.state_dict())
    x = image(*size)
    close(point(x), own(x))


@pytest.mark.parametrize(
    "region", ["neighborhood", "neighborhood_zero", "neighborhood_inside", "window", "global"]
)
@pytest.mark.parametrize("norm", ["tanh", "identity"])
@pytest.mark.parametrize("stride", [1, 2])
def test_weights_that_are_alike_for_all_taps_are_a_gain(region: str, norm: str, stride: int) -> None:
    """Without an entry for each tap and channel, value and every gradient are those of the general form."""
    operator = drawn(
        build(
            "lsa",
            resolution=(8, 9),
            index=1,
            stride=stride,
            channel={"heads": "4", "ghost_lambda": 1, "ghost_gamma": 0.5},
            weights="hadamard_gate",
            norm=norm,
            region=region,
        )
    )
    assert operator.gates
    x, found = image(8, 9).requires_grad_(), []
    for operator.gates in (True, False):
        y = operator(x)
        found.append((y, *torch.autograd.grad(y.square().sum(), (x, *operator.parameters()))))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@settings(max_examples=8, deadline=None)
@given(sizes)
def test_pooled_attention_of_equal_queries_is_the_mean_of_the_blocks(size: tuple[int, int]) -> None:
    operator = drawn(build("attn_conv", branches="pooled", grid=2))
    nn.init.zeros_(operator.attention.query.weight)
    nn.init.zeros_(operator.attention.query.bias)
    x = image(*size)
    block = -(-min(size) // 2)
    rows, columns = range(0, size[0], block), range(0, size[1], block)
    blocks = [x[:, y : y + block, z : z + block].mean((1, 2)) for y in rows for z in columns]
    value = operator.attention.key_value(torch.stack(blocks, 1).mean(1)).chunk(2, -1)[1]
    close(operator(x), operator.output(value)[:, None, None].expand_as(x))


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 9), st.booleans(), st.sampled_from([1, 2, 4]))
def test_manhattan_attention_on_a_line_is_the_same_in_both_forms(length: int, down: bool, heads: int) -> None:
    size = (length, 1) if down else (1, length)
    whole = drawn(build("manhattan", host_heads=heads, decomposed=False))
    parts = build("manhattan", host_heads=heads).double()
    parts.load_state_dict(whole.state_dict())
    x = image(*size)
    close(parts(x), whole(x))


@settings(max_examples=8, deadline=None)
@given(st.tuples(st.integers(1, 5), st.integers(1, 5)), st.sampled_from([1, 2, 8]))
def test_full_manhattan_attention_without_rotation_is_a_point(size: tuple[int, int], heads: int) -> None:
    own = drawn(build("manhattan", host_heads=heads, decomposed=False, rotation=False))
    nn.init.zeros_(own.enhance.weight)
    nn.init.zeros_(own.enhance.bias)
    terms = {"terms": ["content", "decay"]}
    point = build("lsa", host_heads=heads, resolution=size, region="global", weights=terms).double()
    for part in ("weight", "bias"):
        both = torch.cat([own.get_parameter(f"{name}.{part}") for name in ("query", "key")])
        point.get_parameter(f"weights.query_key.{part}").data = both
    point.value.load_state_dict(own.value.state_dict())
    point.output.load_state_dict(own.output.state_dict())
    x = image(*size)
    close(point(x), own(x))


@settings(max_examples=10, deadline=None)
@given(sizes, kernels, st.sampled_from(["window", "neighborhood", "neighborhood_inside", "global"]))
def test_the_term_decay_is_the_norm_softmax_decay_normalized_again(
    size: tuple[int, int], kernel: int, region: str
) -> None:
    size = (max(size[0], 7), max(size[1], 7))
    level = {"name": "neighborhood", "kernel": kernel} if region == "neighborhood" else region
    printed = drawn(build("lsa", resolution=size, region=level, norm="softmax_decay"))
    code = build("lsa", resolution=size, region=level, weights={"terms": ["content", "bias", "decay"]})
    code.double().load_state_dict(printed.state_dict())
    x, found = image(*size), []
    for operator in (printed, code):
        groups = operator.region.prepare(x)
        valid = operator.region.valid(x.shape, x.device)
        found.append(operator.norm(operator.weights(groups, operator.region), valid))
    close(found[0] / found[0].sum(-1, keepdim=True), found[1])
    assert (found[0].sum(-1) <= 1 + 1e-9).all()
