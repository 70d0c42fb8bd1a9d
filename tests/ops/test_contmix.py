"""Context mixing: OverLoCK's block around the operator, and the level `pooled_affinity` of the equation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.small import build, close, drawn, image
from torch import Tensor, nn

from ablate import ops
from ablate.ops import costs


class ResponseNorm(nn.Module):
    """Global response normalization of (B, C, H, W)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma, self.beta = (nn.Parameter(torch.zeros(1, dim, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        length = x.square().sum((2, 3), keepdim=True).sqrt()
        return (self.gamma * length / (length.mean(1, keepdim=True) + 1e-6) + 1) * x + self.beta


class ContMixBlock(nn.Module):
    """OverLoCK's plug-in block, its parts under the authors' names but for the mixer."""

    def __init__(self, mixer: nn.Module, dim: int = 16, ratio: int = 2) -> None:
        super().__init__()
        wide = ratio * dim
        self.mixer = mixer
        self.dwconv1, self.dwconv2 = (nn.Conv2d(dim, dim, 3, padding=1, groups=dim) for _ in range(2))
        self.norm1, self.norm2 = (nn.LayerNorm(dim, eps=1e-6) for _ in range(2))
        self.mlp = nn.ModuleDict(
            {
                "0": nn.Conv2d(dim, wide, 1),
                "2": nn.Conv2d(wide, wide, 3, padding=1, groups=wide),
                "3": ResponseNorm(wide),
                "4": nn.Conv2d(wide, dim, 1),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.with_neighbors(x, self.dwconv1)
        x = x + self.mixer(self.norm1(x))
        x = self.with_neighbors(x, self.dwconv2)
        hidden = F.gelu(self.mlp["0"](self.norm2(x).permute(0, 3, 1, 2)))
        hidden = self.mlp["3"](hidden + self.mlp["2"](hidden))
        return x + self.mlp["4"](hidden).permute(0, 2, 3, 1)

    @staticmethod
    def with_neighbors(x: Tensor, convolution: nn.Module) -> Tensor:
        return x + convolution(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


@pytest.mark.parametrize(("dim", "kernel", "heads"), [(16, 7, 4), (96, 13, 4), (384, 13, 8), (64, 9, 2)])
def test_the_block_has_the_parameters_of_its_formula(dim: int, kernel: int, heads: int) -> None:
    branches = {
        7: (25 + 9 + 9 + 9, 4),
        9: (25 + 49 + 25 + 9 + 9, 5),
        13: (25 + 49 + 49 + 9 + 9 + 9, 6),
    }
    taps, number = branches[kernel]
    hidden = max(16, dim // 8)
    mixer = (
        5 * dim**2
        + dim * (28 + kernel**2 + taps + 2 * number)
        + 2 * dim * hidden
        + hidden
        + 50 * (kernel**2 + 25)
        + heads * (81 + (2 * kernel - 1) ** 2)
    )
    operator = ops.create("contmix", dim, heads=heads, kernel=kernel)
    assert costs.parameters(operator) == mixer - 12 * dim  # the block's convolution and norm before it
    block = ContMixBlock(operator, dim)
    assert costs.parameters(block) == mixer + 4 * dim**2 + 39 * dim
    if dim == 16:
        assert costs.parameters(block) == 10_348


@settings(max_examples=10, deadline=None)
@given(st.tuples(st.integers(1, 8), st.integers(1, 8)), st.booleans())
def test_affinities_that_no_tap_uses_leave_static_filters_and_a_gate(size: tuple, training: bool) -> None:
    """Whatever the map's size: two positions of a constant map differ by the convolution's border alone."""
    operator = drawn(build("contmix", resolution=None)).train(training)
    nn.init.zeros_(operator.taps.weight)
    x = image(1, 1, batch=2).expand(-1, *size, -1)
    mixed = operator.mix(x)
    close(mixed, operator.value(operator.enlarged(x))[:, :1, :1].expand_as(mixed))  # weights sum to one


REGIONS: dict[str, Any] = {
    "neighborhood": {"name": "neighborhood", "kernel": 3},
    "inside": {"name": "neighborhood", "kernel": 3, "border": "inside"},
    "window": {"name": "window", "size": 3},
    "global": "global",
    "sampled": "sampled",
}


def affine(region: str, weights: Any, **more: Any) -> nn.Module:
    return build("lsa", weights=weights, region=REGIONS[region], **more)


@pytest.mark.parametrize("norm", ["softmax", "identity"])
@pytest.mark.parametrize("region", REGIONS)
def test_without_affinities_the_level_is_static(region: str, norm: str) -> None:
    pooled = drawn(affine(region, {"name": "pooled_affinity", "pooled": 2}, norm=norm))
    nn.init.zeros_(pooled.weights.expand.weight)
    static = affine(region, "static", norm=norm).double()
    own = {name: value for name, value in pooled.state_dict().items() if not name.startswith("weights.")}
    filters = pooled.weights.relative_position_bias_table + pooled.weights.expand.bias
    static.load_state_dict({**own, "weights.filters": filters.detach()})
    close(pooled(image(5, 7)), static(image(5, 7)))


@settings(max_examples=15, deadline=None)
@given(st.tuples(st.integers(1, 8), st.integers(1, 8)), st.integers(1, 4), st.integers(1, 2))
def test_the_level_is_its_formula_in_a_neighborhood(size: tuple, side: int, stride: int) -> None:
    more = {"resolution": None, "stride": stride}
    operator = drawn(affine("neighborhood", {"name": "pooled_affinity", "pooled": side}, **more))
    x, weights = image(*size), operator.weights
    spans = [[(i * n // side, -(-(i + 1) * n // side)) for i in range(side)] for n in size]
    means = [x[:, a:b, c:d].mean((1, 2)) for a, b in spans[0] for c, d in spans[1]]
    key = weights.key(torch.stack(means, 1)).unflatten(-1, (2, 4))
    query = weights.query(operator.region.centres(x)).unflatten(-1, (2, 4)) / 2
    affinity = torch.einsum("bhwgd,blgd->bhwgl", query, key)
    logits = affinity @ weights.expand.weight.T + weights.expand.bias + weights.relative_position_bias_table
    close(weights(x, operator.region), logits)
