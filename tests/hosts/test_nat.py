"""NAT hosts: the networks of the authors under their names, with what timm asks of its own classes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import timm
import torch
import torch.nn.functional as F
from tests.ops.definition import sliding
from timm.models._manipulate import group_with_matcher
from torch import Tensor, nn

import ablate.models  # noqa: F401 (registers the networks with timm)
from ablate import hosts, official, ops
from ablate.hosts.features import Features
from ablate.ops import configs, costs

DEPTHS, DIM, HEAD_WIDTH, RATIO, KERNEL = (2, 3), 16, 8, 2, 3
SMALL = {"in_chans": 2, "num_classes": 5, "embed_dim": DIM, "depths": DEPTHS, "head_width": HEAD_WIDTH}
SIZES = ("mini", "tiny", "small", "base")


def shapes(scaled: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the authors' checkpoint of a small NAT."""

    def layer(name: str, *weight: int, bias: bool = True) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", weight
        if bias:
            yield f"{name}.bias", weight[:1]

    yield from layer("patch_embed.proj.0", DIM // 2, 2, 3, 3)
    yield from layer("patch_embed.proj.1", DIM, DIM // 2, 3, 3)
    yield from layer("patch_embed.norm", DIM)
    for level, depth in enumerate(DEPTHS):
        dim = DIM * 2**level
        for index in range(depth):
            block = f"levels.{level}.blocks.{index}"
            yield from layer(f"{block}.norm1", dim)
            yield f"{block}.attn.rpb", (dim // HEAD_WIDTH, 2 * KERNEL - 1, 2 * KERNEL - 1)
            yield from layer(f"{block}.attn.qkv", 3 * dim, dim)
            yield from layer(f"{block}.attn.proj", dim, dim)
            yield from layer(f"{block}.norm2", dim)
            yield from layer(f"{block}.mlp.fc1", RATIO * dim, dim)
            yield from layer(f"{block}.mlp.fc2", dim, RATIO * dim)
            yield from ((f"{block}.gamma{branch}", (dim,)) for branch in (1, 2) if scaled)
        if level < len(DEPTHS) - 1:
            yield from layer(f"levels.{level}.downsample.reduction", 2 * dim, dim, 3, 3, bias=False)
            yield from layer(f"levels.{level}.downsample.norm", 2 * dim)
    yield from layer("norm", dim)
    yield from layer("head", 5, dim)


def restated(weights: dict[str, Tensor], images: Tensor, dilations: list[list[int]]) -> Tensor:
    """The network written out, with the neighbors of each position from their definition."""

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def convolution(name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"), stride=2, padding=1)

    def attention(name: str, x: Tensor, dilation: int) -> Tensor:
        _, height, width, dim = x.shape
        taps = sliding(height, width, KERNEL, dilation=dilation, border="inside")
        neighbor = torch.tensor([[y * width + x for (y, x), _ in met] for met in taps.values()])
        offset = torch.tensor([[entry for _, entry in met] for met in taps.values()])
        parts = linear(f"{name}.qkv", x).flatten(1, 2).unflatten(-1, (3, -1, HEAD_WIDTH))
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # (B, heads, L, d)
        logits = torch.einsum("bhld,bhltd->bhlt", query / HEAD_WIDTH**0.5, key[:, :, neighbor])
        logits = logits + weights[f"{name}.rpb"].flatten(1)[:, offset]
        mixed = torch.einsum("bhlt,bhltd->blhd", logits.softmax(-1), value[:, :, neighbor])
        return linear(f"{name}.proj", mixed.reshape(len(x), height, width, dim))

    x = convolution("patch_embed.proj.1", convolution("patch_embed.proj.0", images))
    x = norm("patch_embed.norm", x.permute(0, 2, 3, 1))
    for level, of_level in enumerate(dilations):
        for index, dilation in enumerate(of_level):
            block = f"levels.{level}.blocks.{index}"
            first, second = (weights.get(f"{block}.gamma{branch}", 1) for branch in (1, 2))
            x = x + first * attention(f"{block}.attn", norm(f"{block}.norm1", x), dilation)
            hidden = F.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", x)))
            x = x + second * linear(f"{block}.mlp.fc2", hidden)
        if level < len(dilations) - 1:
            x = convolution(f"levels.{level}.downsample.reduction", x.permute(0, 3, 1, 2))
            x = norm(f"levels.{level}.downsample.norm", x.permute(0, 2, 3, 1))
    return linear("head", norm("norm", x).mean((1, 2)))


@pytest.mark.parametrize(
    ("op", "layer_scale", "dilations"),
    [("na", 1e-5, [[1, 1], [1, 1, 1]]), ("dinat", None, [[1, 3], [1, 2, 1]])],
    ids=["NAT with layer scale", "DiNAT"],
)
def test_a_checkpoint_of_the_authors_gives_their_logits(
    op: str, layer_scale: float | None, dilations: list[list[int]]
) -> None:
    """On maps of 11×13 and 6×7, where classes of a dilation differ in length."""
    draw = torch.Generator().manual_seed(0)
    scaled = layer_scale is not None
    weights = {name: torch.randn(shape, generator=draw) * 0.3 for name, shape in shapes(scaled)}
    images = torch.randn(2, 2, 42, 50, generator=draw)
    config = configs.override(ops.spec(op).defaults, {"region": {"kernel": KERNEL}})
    settings = {**SMALL, "mlp_ratio": RATIO, "layer_scale": layer_scale, "stem_strides": (2, 2)}
    model = hosts.create("nat_micro", config, **settings, img_size=(42, 50)).eval()
    assert [[block.attn.region.dilation for block in level.blocks] for level in model.levels] == dilations
    official.load(model, weights)
    with torch.no_grad():
        torch.testing.assert_close(model(images), restated(weights, images, dilations), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "published"), [("mini", 2.555), ("tiny", 4.096), ("small", 7.474), ("base", 13.279)]
)
def test_projections_mlps_and_convolutions_cost_what_the_authors_networks_do(
    size: str, published: float
) -> None:
    """Attention itself adds 2·K²·C at each position."""
    with torch.device("meta"):
        model = timm.create_model(f"nat_{size}")
    slots = [placed.slot for placed in hosts.slots(f"nat_{size}")]
    attention = sum(2 * 49 * slot.dim * slot.resolution[0] * slot.resolution[1] for slot in slots)
    assert round((costs.macs(model, 1, 3, 224, 224) - attention) / 1e9, 3) == published
    assert {slot.dim // slot.heads for slot in slots} == {32}


@pytest.mark.parametrize(("pixels", "largest"), [(224, (8, 4, 2, 1)), (384, (13, 6, 3, 1))])
def test_dinats_blocks_have_the_published_dilations(pixels: int, largest: tuple[int, ...]) -> None:
    with torch.device("meta"):
        model = timm.create_model("dinat_tiny", img_size=pixels)
    for level, dilation in zip(model.levels, largest, strict=True):
        found = [block.attn.region.dilation for block in level.blocks]
        assert found == [1 if index % 2 == 0 else dilation for index in range(len(level.blocks))]


@pytest.mark.parametrize("size", SIZES)
def test_branches_begin_and_are_dropped_as_published(size: str) -> None:
    larger, last = size in ("small", "base"), {"small": 0.3, "base": 0.5}.get(size, 0.2)
    for name, scaled in ((f"nat_{size}", larger), (f"dinat_{size}", size == "base")):
        with torch.device("meta"):
            blocks = [block for level in timm.create_model(name).levels for block in level.blocks]
        rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in blocks]
        steps = [last * index / (len(blocks) - 1) for index in range(len(blocks))]
        assert rates == pytest.approx(steps)
        assert all((block.gamma1 is not None) == (block.gamma2 is not None) == scaled for block in blocks)
    model = hosts.create("nat_micro", None, layer_scale=1e-5)
    gammas = [value for name, value in model.named_parameters() if ".gamma" in name]
    assert len(gammas) == 6
    assert all(value.eq(1e-5).all() for value in gammas)


def test_linear_layers_begin_as_the_authors_do() -> None:
    torch.manual_seed(0)
    model = hosts.create("nat_micro", None, num_classes=500)
    for part in model.modules():
        if isinstance(part, nn.Linear):
            assert part.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert not part.bias.any()


def test_tables_of_position_biases_are_not_decayed() -> None:
    model = hosts.create("nat_micro", "na")
    tables = {name for name, _ in model.named_parameters() if "bias_table" in name}
    assert len(tables) == 3
    assert model.no_weight_decay() == tables


def test_layers_count_from_the_stem_to_the_head() -> None:
    """A downsampler is of the layer of the block before it, for `recipe.layer_decay`."""
    model = hosts.create("nat_micro", "na")
    layers = group_with_matcher(model.named_parameters(), model.group_matcher(), reverse=True)
    order = [
        layers[name]
        for name in (
            "patch_embed.proj.0.weight",
            "levels.0.blocks.0.norm1.weight",
            "levels.0.blocks.1.norm1.weight",
            "levels.0.downsample.reduction.weight",
            "levels.1.blocks.0.mlp.fc1.weight",
            "norm.weight",
        )
    ]
    assert order == [0, 1, 2, 2, 3, 3]
    assert layers["head.weight"] == 4


def test_maps_are_those_before_a_downsampler_and_need_no_later_level() -> None:
    torch.manual_seed(0)
    model = hosts.create("nat_micro", "dwconv", in_chans=1).eval()
    x = torch.randn(2, 1, 29, 31)
    with torch.no_grad():
        last, (fine, coarse) = model.forward_intermediates(x, norm=True)
        blocks = model.levels[0](model.patch_embed(x))
        assert torch.equal(fine, blocks.permute(0, 3, 1, 2))
        assert torch.equal(last.permute(0, 3, 1, 2), coarse)
        assert torch.equal(last, model.forward_features(x))
        assert torch.equal(model.forward_head(last), model(x))
        features = Features(model, hosts.feature_levels("nat_micro")[:1])
        (found,) = features.model.forward_intermediates(x, indices=[0], intermediates_only=True)
    assert fine.shape == (2, 32, 15, 16)
    assert coarse.shape == (2, 64, 8, 8)
    assert torch.equal(found, fine)
    assert not any("downsample" in name or ".1.blocks" in name for name in features.model.state_dict())
