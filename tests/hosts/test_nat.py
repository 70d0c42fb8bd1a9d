"""NAT hosts: the networks of the authors under their names, with what timm asks of its own classes."""

from __future__ import annotations

import pytest
import timm
import torch
from tests.hosts import restated_nat as restated
from timm.models._manipulate import group_with_matcher
from torch import nn

import ablate.models  # noqa: F401 (registers the networks with timm)
from ablate import hosts, official, ops
from ablate.hosts.features import Features
from ablate.ops import configs, costs

SIZES = ("mini", "tiny", "small", "base")


@pytest.mark.parametrize(
    ("op", "layer_scale", "dilations"),
    [("na", 1e-5, [[1, 1], [1, 1, 1]]), ("dinat", None, [[1, 3], [1, 2, 1]])],
    ids=["NAT with layer scale", "DiNAT"],
)
def test_a_checkpoint_of_the_authors_gives_their_logits(
    op: str, layer_scale: float | None, dilations: list[list[int]]
) -> None:
    """On maps of 11×13 and 6×7, where classes of a dilation differ in length."""
    width = restated.DIM * 2 ** (len(restated.DEPTHS) - 1)
    end = (*restated.layer("norm", width), *restated.layer("head", 5, width))
    weights = restated.drawn((*restated.shapes(2, scaled=layer_scale is not None), *end))
    config = configs.override(ops.spec(op).defaults, {"region": {"kernel": restated.KERNEL}})
    settings = {**restated.HOST, "in_chans": 2, "num_classes": 5, "img_size": (42, 50)}
    model = hosts.create("nat_micro", config, **settings, layer_scale=layer_scale).eval()
    assert [[block.attn.region.dilation for block in level.blocks] for level in model.levels] == dilations
    official.load(model, weights)
    images = torch.randn(2, 2, 42, 50)
    *_, last = restated.maps(weights, images, dilations)
    expected = restated.linear(weights, "head", restated.norm(weights, "norm", last).mean((1, 2)))
    with torch.no_grad():
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)


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
