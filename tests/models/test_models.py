"""The published hybrids: counted as their authors' code counts, and ordinary timm models."""

from __future__ import annotations

import re

import pytest
import timm
import torch
from timm.models._features_fx import create_feature_extractor, get_graph_node_names
from torch import nn

import ablate.models
from ablate import ops
from ablate.bench import models as bench
from ablate.errors import UserError
from ablate.hosts.slots import ChannelsFirst
from ablate.ops.zoo.slide import SlideAttention

GOLDEN = bench.golden()
FAMILIES = [  # the smallest of each
    "d_dwnet_tiny",
    "ddf_add_resnet50",
    "ddf_mul_resnet50",
    "dinat_mini",
    "dwnet_tiny",
    "elsa_swin_tiny",
    "elsa_volo_d1",
    "i_d_dwnet_tiny",
    "lesa_resnet50",
    "na_swin_tiny",
    "nat_mini",
    "rednet26",
    "slide_swin_tiny",
]


def test_the_golden_file_has_every_network() -> None:
    assert set(GOLDEN) == set(bench.catalogue())


@pytest.mark.parametrize("name", GOLDEN)
def test_counts_are_the_golden_ones_and_those_of_the_authors(name: str) -> None:
    expected = dict(GOLDEN[name])
    authors = expected.pop("authors")
    counted = bench.count(name)
    assert counted == expected, "changed on purpose? `ablate bench models --golden`"
    with torch.device("meta"):
        model = bench.catalogue()[name]()
    slides = (module for module in model.modules() if isinstance(module, SlideAttention))
    fixed = sum(module.shift.weight.numel() for module in slides)  # a parameter in the authors' code
    assert authors in (None, counted["parameters"] + fixed)


@pytest.mark.parametrize("name", ablate.models.names())
def test_every_hybrid_gives_features(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, features_only=True)
        maps = model(torch.empty(2, 3, 224, 224, device="meta"))
    sizes = [(m.shape[1:3] if getattr(model, "output_fmt", "NCHW") == "NHWC" else m.shape[2:]) for m in maps]
    reductions = [224 // height for height, _ in sizes]
    assert reductions == list(model.feature_info.reduction())


def test_every_family_is_tried() -> None:
    def family(name: str) -> str:
        return re.sub(r"(_mini|_tiny|_small|_base|_d\d|\d+)$", "", name)

    networks = [name for name in ablate.models.names() if "wide" not in name]
    assert {family(name) for name in FAMILIES} == {family(name) for name in networks}


@pytest.mark.parametrize("name", FAMILIES)
def test_builds_for_other_classes_and_images(name: str) -> None:
    size = {"img_size": 64} if "rednet" not in name and "ddf" not in name else {}
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7, **size).eval()
    with torch.no_grad():
        logits = model(torch.randn(2, 3, 64, 64))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    assert model.default_cfg["input_size"] == (3, 224, 224)


def test_a_fixed_map_says_for_which_size_it_was_built() -> None:
    model = timm.create_model("lesa_resnet50", img_size=64)
    with pytest.raises(UserError, match="built for a map of 4×4, this one is 6×6"):
        model(torch.randn(1, 3, 96, 96))


@pytest.mark.parametrize("name", [name for name in FAMILIES if "volo" not in name])
def test_fx_takes_the_operators_whole(name: str) -> None:
    """As timm's extraction of features by torch.fx; timm's own VOLO cannot be traced either."""
    size = {"img_size": 64} if "rednet" not in name and "ddf" not in name else {}
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7, **size).eval()
    images = torch.randn(2, 3, 64, 64)
    last = get_graph_node_names(model)[1][-1]
    with torch.no_grad():
        (traced,) = create_feature_extractor(model, {last: "logits"})(images).values()
        torch.testing.assert_close(traced, model(images))


@pytest.mark.parametrize("name", FAMILIES)
def test_channels_and_classifier_change_as_in_timm(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, in_chans=1, num_classes=0)
        assert model.forward_head(model.forward_features(torch.empty(2, 1, 224, 224))).shape == (
            2,
            model.num_features,
        )
        model.reset_classifier(5)
        assert model(torch.empty(2, 1, 224, 224)).shape == (2, 5)
        model.set_grad_checkpointing()
    config = model.default_cfg
    heads = [config["classifier"]] if isinstance(config["classifier"], str) else config["classifier"]
    assert isinstance(model.get_submodule(config["first_conv"]), nn.Conv2d)  # what timm adapts
    assert all(isinstance(model.get_submodule(head), nn.Linear) for head in heads)
    assert config["fixed_input_size"] == any(kind in name for kind in ("lesa", "swin", "volo", "dwnet"))
    assert timm.data.resolve_model_data_config(model, use_test_size=True)["input_size"] == (3, 224, 224)
    assert not config.get("origin_url") and not config.get("paper_ids")


def test_settings_of_the_operator_can_be_given() -> None:
    with torch.device("meta"):
        model = timm.create_model("elsa_swin_tiny", op={"region": {"kernel": 5}})
    assert model.layers[0].blocks[0].attn.region.kernel == 5
    with pytest.raises(UserError, match="did you mean 'region'"):
        timm.create_model("elsa_swin_tiny", op={"regoin": {}})


def test_lesa_resnet_has_the_authors_layout() -> None:
    with torch.device("meta"):
        model = timm.create_model("lesa_resnet50")
    filled = [name for name, module in model.named_modules() if isinstance(module, ChannelsFirst)]
    assert filled == [*(f"layer3.{n}.conv2" for n in range(1, 6)), *(f"layer4.{n}.conv2" for n in range(3))]
    assert not any("bn2" in name for name in model.layer4.state_dict())
    real = timm.create_model("lesa_resnet50", img_size=32)
    assert all(block.bn3.weight.eq(1).all() for block in real.layer4)  # no zero-initialised residuals


def test_rednet_has_involution_in_its_stem() -> None:
    with torch.device("meta"):
        model = timm.create_model("rednet26")
    stem = model.conv1[3].operator
    assert isinstance(stem, ops.LocalOperator)
    assert (stem.heads, stem.region.kernel) == (2, 3)
