"""The one equation, written as it stands in the design, against every preset and any point of its space."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.ops.definition import (
    Position,
    Tap,
    Taps,
    all_pairs,
    at,
    batch_norm,
    block_means,
    neighbors,
    sliding,
    summed,
    windows,
)
from tests.ops.small import PRESETS, build, close, drawn, image, small
from torch import Tensor, nn

from ablate import ops
from ablate.ops import LocalOperator, Slot, axes, configs

POINTWISE = ("pairwise", "hadamard", "linear", "static", "learned_query")
PAIRS = (axes.PairwiseConfig, axes.HadamardConfig, axes.LearnedQueryConfig)
OF_TAPS = (
    "softmax",
    "filter_norm",
    "softmax_decay",
)  # norms that leave nothing of weights that are alike for all taps
Logits = Callable[[Position, list[Tap]], Tensor]  # (B or 1, G, taps) at a position


def equation(operator: LocalOperator, config: axes.OperatorConfig, slot: Slot, x: Tensor) -> Tensor:
    """Σ_j ( (o_Δ[c])^λ · Norm_j(A_ij[g(c)]) + γ · s_Δ[c] ) · v_j[c], with all that stands around it."""
    channel, region = config.channel, config.region.at(slot)
    _, height, width, _ = x.shape
    own_stride = slot.stride if strides_itself(config) else 1
    shift = (0, 0)
    whole = x
    if isinstance(region, axes.WindowConfig):
        half = region.size // 2 if region.shift == "alternate" and slot.index % 2 else 0
        shift = (half * (height > region.size), half * (width > region.size))
        x = F.pad(
            x.roll((-shift[0], -shift[1]), (1, 2)), filling(x, -height % region.size, -width % region.size)
        )
        taps = all_pairs(region.size, region.size, windows(*x.shape[1:3], region.size, shift))
        count = region.size**2
        if isinstance(region, axes.WindowAndPooledConfig):
            x, taps, count = with_tokens(whole, x, taps, region.size)
    elif isinstance(region, axes.NeighborhoodConfig):
        if region.border == "inside":
            least = region.kernel
            x = F.pad(x, filling(x, max(0, least - height), max(0, least - width)))
        # without a norm a masked tap is a zero one
        taps = sliding(
            *x.shape[1:3], region.kernel, dilation=region.dilation, border=region.border, stride=own_stride
        )
        count = region.kernel**2
    else:
        taps = all_pairs(height, width, [[(y, z) for y in range(height) for z in range(width)]])
        count = height * width
    logits = logits_of(operator, config, x, own_stride)
    ghost = operator.ghost
    side = region.size if isinstance(region, axes.WindowConfig) else max(x.shape)
    if config.norm.name == "group_norm":
        normal = group_norm(operator, logits, taps, side)

    def filters(position: Position, met: list[Tap]) -> Tensor:
        offsets = [offset for _, offset in met]
        weights = (
            normal(position, met)
            if config.norm.name == "group_norm"
            else normalised(logits(position, met), config.norm.name, count)
        )
        if config.norm.name == "softmax_decay":
            factors = torch.stack([decay(operator, offset) for offset in offsets], -1)
            weights = weights * factors.repeat(weights.shape[1] // operator.heads, 1)
        if isinstance(config.weights, axes.LearnedQueryConfig):
            weights = mixed(operator, config.weights, weights, offsets)
        weights = weights.repeat_interleave(slot.dim // weights.shape[1], 1)  # (B, C, taps)
        if channel.ghost_lambda:
            weights = weights * ghost.multiply[:, offsets] ** channel.ghost_lambda
        if channel.ghost_gamma:
            weights = weights + channel.ghost_gamma * ghost.add[:, offsets]
        return weights

    y = summed(operator.value(x), taps, filters)
    if channel.bias:
        y = y + operator.bias
    if channel.output == "batch_norm_skip":
        y = batch_norm(y, operator.output.norm) + block_means(x, own_stride)[:, : y.shape[1]]
    else:
        y = operator.output(y)
    if own_stride == 1:
        y = y[:, :height, :width].roll(shift, (1, 2))
    return block_means(y, slot.stride // own_stride)


def with_tokens(whole: Tensor, x: Tensor, taps: Taps, size: int) -> tuple[Tensor, Taps, int]:
    """The tokens of the whole map as rows below the windows; each position meets them; the number of taps."""
    tokens = F.adaptive_avg_pool2d(whole.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1)
    rows = x.shape[1]
    below = [((rows + p // size, p % size), (2 * size - 1) ** 2 + p) for p in range(size**2)]
    x = torch.cat([x, F.pad(tokens, filling(x, 0, x.shape[2] - size))], 1)
    return x, {position: [*met, *below] for position, met in taps.items()}, 2 * size**2


def mixed(
    operator: LocalOperator, level: axes.LearnedQueryConfig, weights: Tensor, offsets: list[int]
) -> Tensor:
    """Σ_q s_Δ[q, g] · F_ij[q, g]."""
    gains = operator.weights.gains
    if gains is not None:
        weights = weights * (gains[:, offsets] if level.gains == "per_tap" else gains)
    return weights.unflatten(1, (level.queries, operator.heads)).sum(1)


def strides_itself(config: axes.OperatorConfig) -> bool:
    sliding_ = isinstance(config.region, axes.NeighborhoodConfig) and config.region.border != "inside"
    return sliding_ and not isinstance(config.weights, PAIRS)


def filling(x: Tensor, rows: int, columns: int) -> tuple[int, ...]:
    return (0, 0, 0, columns, 0, rows)


def logits_of(operator: LocalOperator, config: axes.OperatorConfig, x: Tensor, stride: int) -> Logits:
    """What generates A_ij, for the map that the region has prepared."""
    weights, level, heads = operator.weights, config.weights, operator.heads
    if isinstance(level, (axes.PairwiseConfig, axes.HadamardConfig)):
        return pair_terms(operator, level, x)
    if isinstance(level, axes.LearnedQueryConfig):
        return learned_queries(operator, level, x)
    if isinstance(level, axes.StaticConfig):
        return lambda _, met: weights.filters[None, :, [offset for _, offset in met]]
    if isinstance(level, axes.HadamardConvConfig):
        query, key = weights.query_key(x).chunk(2, -1)
        mix = weights.mix
        centres = block_means(query * key * level.scale, stride).permute(0, 3, 1, 2)
        reach = config.region.dilation * (config.region.kernel // 2)
        groups = centres.shape[1] // level.group_width
        mixed = F.conv2d(centres, mix.weight, mix.bias, 1, reach, config.region.dilation, groups)
        maps = weights.expand(F.gelu(mixed.permute(0, 2, 3, 1)))
    elif isinstance(level, axes.HadamardGateConfig):
        seen = in_tiles(weights.query_key(block_means(x, stride)), tile_of(config, x), weights.look)
        query, key = seen.chunk(2, -1)
        hidden, scale = weights.gate.mix(query * key), weights.gate.scale
        gain = weights.gate.expand(hidden / (1 + (-hidden).exp())) * scale
        maps = gain[..., None].expand(*gain.shape, operator.region.offsets).flatten(-2)
    elif isinstance(level, axes.WideConvConfig):
        sides = tile_of(config, x)
        seen = batch_norm(weights.reduce(block_means(x, stride)), weights.reduce_norm).relu()
        seen = batch_norm(in_tiles(seen, sides, weights.look), weights.look_norm)
        maps = weights.expand(batch_norm(weights.mix(seen), weights.mix_norm).relu())
    elif isinstance(level, axes.LinearConfig):
        maps = weights.expand(block_means(x, stride))
    else:
        if isinstance(level, axes.PooledConfig):  # of each window, or of the whole map
            sides = tile_of(config, x)
            tiles = x.unflatten(2, (-1, sides[1])).unflatten(1, (-1, sides[0]))
            x, stride = tiles.mean((2, 4)), 1
        maps = weights.expand(batch_norm(weights.reduce(block_means(x, stride)), weights.norm).relu())
        if isinstance(level, axes.PooledConfig):
            maps = maps.repeat_interleave(sides[0], 1).repeat_interleave(sides[1], 2)
    maps = maps.unflatten(-1, (heads, -1))
    step = 1 if isinstance(level, axes.PooledConfig) else stride

    def of_centre(position: Position, met: list[Tap]) -> Tensor:
        return maps[:, position[0] // step, position[1] // step][..., [offset for _, offset in met]]

    return of_centre


def decay(operator: LocalOperator, offset: int) -> Tensor:
    """γ_h to the power of |Δ row| + |Δ column|, with γ_h = 1 − 2^(−2 − 4h/heads)."""
    rows, columns = operator.region.sides
    step = operator.region.dilation
    distance = step * (abs(offset // columns - rows // 2) + abs(offset % columns - columns // 2))
    heads = torch.arange(operator.heads, dtype=torch.float64)
    return (1 - 2 ** (-2 - 4 * heads / operator.heads)) ** distance


def learned_queries(operator: LocalOperator, level: axes.LearnedQueryConfig, x: Tensor) -> Logits:
    """q̂·k_j + r^b_Δ for each query of each head."""
    weights = operator.weights
    query = weights.query.unflatten(-1, (operator.heads, -1))
    length = query.square().sum(-1, keepdim=True).sqrt() + 1e-6 if level.normalized else 1
    query = query / length * query.shape[-1] ** -0.5
    key = weights.key(x).unflatten(-1, (operator.heads, -1))

    def logits(position: Position, met: list[Tap]) -> Tensor:
        found = [
            (query * at(key, neighbor)[:, None]).sum(-1).flatten(1)
            + weights.relative_position_bias_table[:, offset]
            for neighbor, offset in met
        ]
        return torch.stack(found, -1)

    return logits


def tile_of(config: axes.OperatorConfig, x: Tensor) -> Sequence[int]:
    """Rows and columns of a window, or of the map."""
    return [config.region.size] * 2 if isinstance(config.region, axes.WindowConfig) else x.shape[1:3]


def in_tiles(x: Tensor, sides: Sequence[int], convolution: nn.Module) -> Tensor:
    """Apply a depthwise convolution that sees zeros outside each tile of (rows, columns)."""
    found = torch.zeros_like(x)
    for y in range(0, x.shape[1], sides[0]):
        for z in range(0, x.shape[2], sides[1]):
            tile = x[:, y : y + sides[0], z : z + sides[1]]
            around = neighbors(tile, convolution.weight.shape[-1])  # (B, H, W, K², C)
            found[:, y : y + sides[0], z : z + sides[1]] = torch.einsum(
                "bhwtc,ct->bhwc", around, convolution.weight.flatten(1)
            )
    return found if convolution.bias is None else found + convolution.bias


def pair_terms(
    operator: LocalOperator, level: axes.PairwiseConfig | axes.HadamardConfig, x: Tensor
) -> Logits:
    """q_i·k_j + q_i·r^k_Δ + r^q_Δ·k_j + r^b_Δ, whichever are asked for."""
    tables, terms = operator.weights.position, level.terms
    query, key = operator.weights.query_key(x).unflatten(-1, (2, operator.heads, -1)).unbind(3)
    if isinstance(level, axes.HadamardConfig):
        query = key = query * key * (1.0 if level.scale is None else level.scale)
    else:
        query = query * (query.shape[-1] ** -0.5 if level.scale is None else level.scale)

    def logits(position: Position, met: list[Tap]) -> Tensor:
        q = at(query, position)  # (B, G, d)
        found = []
        for neighbor, offset in met:
            k = at(key, neighbor)
            total = torch.zeros_like(q[..., 0])
            if "content" in terms:
                total = total + (q * k).sum(-1)
            if "query_position" in terms:
                total = total + (q * tables.query_position[:, offset]).sum(-1)
            if "key_position" in terms:
                total = total + (tables.key_position[:, offset] * k).sum(-1)
            if "bias" in terms:
                total = total + tables.relative_position_bias_table[:, offset]
            if "decay" in terms:
                total = total + decay(operator, offset).log()
            found.append(total)
        return torch.stack(found, -1)

    return logits


def normalised(logits: Tensor, norm: str, count: int) -> Tensor:
    """Over the taps that count; `count` is how many a position in the middle of a large map has."""
    if norm in axes.ELEMENTWISE:
        return torch.tanh(logits) if norm == "tanh" else logits
    if norm in ("softmax", "softmax_decay"):
        positive = (logits - logits.amax(-1, keepdim=True)).exp()
        return positive / positive.sum(-1, keepdim=True)
    centred = logits - logits.mean(-1, keepdim=True)
    deviation = (centred.square().sum(-1, keepdim=True) / max(logits.shape[-1] - 1, 1)).sqrt()
    return centred / (deviation + 1e-10) * math.sqrt(2 / count)


def group_norm(operator: LocalOperator, logits: Logits, taps: Taps, side: int) -> Logits:
    """Over taps and positions of a map, or of a window of `side`; then a gain and shift for each offset."""
    groups: dict[Position, list[Tensor]] = {}
    for (y, x), met in taps.items():
        groups.setdefault((y // side, x // side), []).append(logits((y, x), met))
    every = {group: torch.cat(found, -1) for group, found in groups.items()}
    weight, bias = operator.norm.weight, operator.norm.bias

    def normal(position: Position, met: list[Tap]) -> Tensor:
        offsets, alike = [offset for _, offset in met], every[position[0] // side, position[1] // side]
        centred = logits(position, met) - alike.mean(-1, keepdim=True)
        deviation = (alike.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return centred / deviation * weight[:, offsets] + bias[:, offsets]

    return normal


@pytest.mark.parametrize(
    ("size", "region"),
    [((7, 6), {"dilation": 2}), ((3, 4), {"kernel": 5})],
    ids=["dilated", "smaller than K"],
)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_its_point_of_the_equation(
    name: str, stride: int, size: tuple[int, int], region: dict[str, int]
) -> None:
    changes = {"region": region} if "kernel" in small(name)["region"] else {}
    operator = drawn(build(name, resolution=size, stride=stride, index=1, **changes))
    config = configs.override(configs.override(ops.spec(name).defaults, small(name)), changes)
    x, slot = image(*size, batch=3), Slot(8, 2, size, stride, index=1)
    for mode in (True, False):
        operator.train(mode)
        close(operator(x), equation(operator, axes.parse(config), slot, x))


terms = st.lists(st.sampled_from(axes.TERMS), min_size=1, unique=True)
scales = st.sampled_from([None, 0.7])
WEIGHTS = st.one_of(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["pairwise", "hadamard"]),
            "terms": terms,
            "scale": scales,
            "bias": st.booleans(),
        }
    ),
    st.fixed_dictionaries(
        {
            "name": st.just("hadamard_conv"),
            "group_width": st.sampled_from([2, 4]),
            "scale": st.sampled_from([0.7, 1.0]),
            "bias": st.booleans(),
        }
    ),
    st.fixed_dictionaries(
        {"name": st.just("bottleneck"), "reduction": st.sampled_from([2, 4]), "reduce_bias": st.booleans()}
    ),
    st.fixed_dictionaries({"name": st.just("pooled"), "reduction": st.sampled_from([2, 4])}),
    st.fixed_dictionaries({"name": st.sampled_from(["linear", "static"])}),
    st.fixed_dictionaries(
        {
            "name": st.just("learned_query"),
            "queries": st.integers(1, 3),
            "normalized": st.booleans(),
            "gains": st.sampled_from(["per_tap", "per_query", "none"]),
        }
    ),
    st.fixed_dictionaries(
        {"name": st.just("hadamard_gate"), "kernel": st.sampled_from([3, 5]), "scale": scales}
    ),
    st.fixed_dictionaries({"name": st.just("wide_conv"), "kernel": st.sampled_from([3, 5])}),
)
NEIGHBORHOOD = st.fixed_dictionaries(
    {
        "name": st.just("neighborhood"),
        "kernel": st.sampled_from([3, 5]),
        "dilation": st.sampled_from([1, 2]),
        "border": st.sampled_from(axes.BORDERS),
    }
)
WINDOW = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["window", "window_and_pooled"]),
        "size": st.sampled_from([2, 3]),
        "shift": st.sampled_from(axes.SHIFTS),
    }
)
projections = st.sampled_from(axes.PROJECTIONS)
CHANNEL = st.fixed_dictionaries(
    {
        "heads": st.sampled_from(["1", "1x", "C/2", "C"]),
        "ghost_lambda": st.sampled_from([0, 1, 2]),
        "ghost_gamma": st.sampled_from([0.0, 0.5]),
        "value": projections,
        "value_initialization": st.just("transformer"),
        "output": st.sampled_from(axes.OUTPUTS),
        "bias": st.booleans(),
    }
)


def least_side(region: dict[str, Any]) -> int:
    """The smallest map that a region is accepted on, for kernels of 7 at most."""
    if region["name"] != "neighborhood":
        return region.get("size", 2)
    if region["dilation"] == 1:
        return 1
    inside = region["border"] == "inside"
    return region["kernel"] * region["dilation"] if inside else region["kernel"] // 2 * region["dilation"] + 1


@st.composite
def points(draw: st.DrawFn) -> tuple[dict[str, Any], Slot]:
    """Any combination of levels that can exist, in a slot of any map."""
    weights = draw(WEIGHTS)
    whole = st.just({"name": "global"})
    region = draw(NEIGHBORHOOD if weights["name"] == "hadamard_conv" else NEIGHBORHOOD | WINDOW | whole)
    config = {"name": "lsa", "channel": draw(CHANNEL), "weights": weights, "region": region}
    assume(region["name"] != "window_and_pooled" or weights["name"] in POINTWISE)
    assume(region["name"] != "window_and_pooled" or "decay" not in weights.get("terms", ()))
    resolution = (
        draw(st.integers(least := least_side(region), least + 5)),
        draw(st.integers(least, least + 5)),
    )
    norms = [n for n in axes.LEVELS["norm"] if weights["name"] != "hadamard_gate" or n not in OF_TAPS]
    if region["name"] == "window_and_pooled":  # whose tokens have no distance
        norms.remove("softmax_decay")
    config["norm"] = {"name": draw(st.sampled_from(norms))}
    return config, Slot(8, 2, resolution, draw(st.integers(1, 2)), index=draw(st.integers(0, 1)))


@pytest.mark.parametrize("norm", ["softmax", "filter_norm", "group_norm"])
@pytest.mark.parametrize("name", ["lsa", "elsa_equation", "dynamic_filter", "qna"])
def test_presets_in_windows_that_see_the_pooled_map(name: str, norm: str) -> None:
    axes_of = {
        "region": {"name": "window_and_pooled", "size": 2, "shift": "alternate"},
        "norm": {"name": norm},
    }
    config = {**ops.spec(name).defaults, **axes_of, "channel": ops.spec("elsa").defaults["channel"]}
    slot = Slot(8, 2, (5, 7), index=1)
    x, operator = image(5, 7, batch=3), drawn(ops.from_config(config, slot))
    close(operator(x), equation(operator, axes.parse(config), slot, x))


@settings(max_examples=60, deadline=None)
@given(points(), st.booleans())
def test_any_point_is_the_equation(point: tuple[dict[str, Any], Slot], training: bool) -> None:
    config, slot = point
    operator = drawn(ops.from_config(config, slot)).train(training)
    x = image(*slot.resolution, batch=3)
    close(operator(x), equation(operator, axes.parse(config), slot, x))


def test_the_taps_of_the_definition_are_worth_comparing_with() -> None:
    """K² real taps under `inside`, fewer under `mask`, offsets centred under `zero`."""
    found: dict[str, Taps] = {b: sliding(6, 7, 3, dilation=2, border=b) for b in axes.BORDERS}
    assert [key for key, _ in found["inside"][0, 6]] == [(y, x) for y in (0, 2, 4) for x in (2, 4, 6)]
    assert [offset for _, offset in found["inside"][0, 6]] == [
        row * 5 + c for row in (2, 3, 4) for c in (0, 1, 2)
    ]
    assert found["mask"][0, 6] == [((0, 4), 3), ((0, 6), 4), ((2, 4), 6), ((2, 6), 7)]
    assert found["zero"][3, 3] == [
        ((y, x), i) for i, (y, x) in enumerate((y, x) for y in (1, 3, 5) for x in (1, 3, 5))
    ]
