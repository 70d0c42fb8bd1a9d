"""Detectors and segmenters under mmdetection's and mmsegmentation's names compute what theirs do."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.hosts import restated_nat
from tests.tasks import mmdetection as theirs
from tests.tasks.configured import configure
from torch import Tensor, nn

from ablate import tasks
from ablate.errors import UserError
from ablate.official import dense

HOST = (
    "host=swin_micro",
    "+host.shift_order=pad_then_roll",
    "+host.depths=[2,2]",
    "host.stages=[1]",
    "+host.strict_img_size=false",
)
DETECTION = (*HOST, "task=detection", "task.channels=8", "task.hidden=12", "task.mask_convolutions=2")
CASCADE = ("task.thresholds=[0.5,0.6,0.7]", "task.convolutions=2", "task.overlap_loss=true")
SEGMENTATION = (*HOST, "task=segmentation", "task.channels=8", "task.auxiliary_channels=6")
WIDTHS, CLASSES = (32, 64), 10


def ours(*overrides: str) -> tuple[nn.Module, dict[str, Any]]:
    config = configure("op=lsa", *overrides)
    return tasks.of_run(config).build(config).eval(), config


def loud(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            module.num_batches_tracked.fill_(7)
    return model.eval()


def detector(stages: int, *, unfold: bool = True) -> nn.Module:
    boxes = [theirs.BBoxHead(8, 12, 2 if stages > 1 else 0, CLASSES) for _ in range(stages)]
    masks = [theirs.MaskHead(8, 2, CLASSES) for _ in range(stages)]
    several = stages > 1
    return loud(
        theirs.Container(
            backbone=theirs.Swin(32, (2, 2), (2, 4), unfold=unfold),
            neck=theirs.FPN(WIDTHS, 8),
            rpn_head=theirs.RPNHead(8),
            roi_head=theirs.Container(
                bbox_head=nn.ModuleList(boxes) if several else boxes[0],
                mask_head=nn.ModuleList(masks) if several else masks[0],
            ),
        )
    )


def segmenter() -> nn.Module:
    return loud(
        theirs.Container(
            backbone=theirs.Swin(32, (2, 2), (2, 4), unfold=True),
            decode_head=theirs.UPerHead(WIDTHS, 8, (1, 2, 3, 6), CLASSES + 1),
            auxiliary_head=theirs.fcn_head(32, 6, CLASSES + 1),
        )
    )


def close(mine: Any, yours: Any) -> None:
    torch.testing.assert_close(mine, yours, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("stages", [1, 3], ids=["mask_rcnn", "cascade"])
@pytest.mark.parametrize("unfold", [True, False], ids=["mmdetection", "swin's repository"])
def test_a_whole_detector_computes_what_theirs_does(stages: int, unfold: bool) -> None:
    there, (here, _) = detector(stages, unfold=unfold), ours(*DETECTION, *(CASCADE if stages > 1 else ()))
    state = there.state_dict()
    here.load_state_dict(dense.convert(here, state if unfold else theirs.as_in_swins_repository(state)))
    images = torch.randn(2, 1, 50, 76)
    maps = there.backbone(images)
    close(here.features(images), maps)
    levels = there.neck(maps)
    close(here.heads.pyramid(here.features(images)), levels)
    scores, offsets = here.heads.proposals.head(levels)
    close(list(zip(scores, offsets, strict=True)), [there.rpn_head(one) for one in levels])
    boxes, masks = there.roi_head.bbox_head, there.roi_head.mask_head
    regions = torch.rand(5, 4) * 20 + torch.tensor([0.0, 0, 40, 40])
    cut = torch.randn(5, 8, 7, 7)
    for stage, spread in enumerate([(0.1, 0.2), (0.05, 0.1), (0.033, 0.067)][:stages]):
        yours = boxes[stage] if stages > 1 else boxes
        logits, moves = yours(cut)
        mine = here.heads.box_heads[stage]
        found, moved = mine(cut)
        close(found.softmax(1)[:, :-1], logits.softmax(1)[:, :-1])  # the last one is the background
        placed = mine.coder.decode_single(moved.flatten(1) / 10, regions)
        close(placed.view(5, CLASSES, 4), yours.boxes(regions, moves / 10, [spread[0]] * 2 + [spread[1]] * 2))
        fine = torch.randn(3, 8, 14, 14)
        close(here.heads.mask_heads[stage](fine), (masks[stage] if stages > 1 else masks)(fine))


@torch.no_grad()
def test_a_whole_segmenter_computes_what_theirs_does() -> None:
    there, (here, _) = segmenter(), ours(*SEGMENTATION)
    here.load_state_dict(dense.convert(here, there.state_dict()))
    maps = there.backbone(torch.randn(1, 1, 50, 76))
    close(here.head(maps), there.decode_head(maps))
    auxiliary = there.auxiliary_head
    close(here.auxiliary(maps[0]), auxiliary.conv_seg(auxiliary.convs[0](maps[0])))
    assert int(here.head.fusion[1].num_batches_tracked) == 7


@torch.no_grad()
def test_a_segmenter_on_nat_has_the_maps_that_its_authors_have() -> None:
    widths = [restated_nat.DIM * 2**level for level in range(len(restated_nat.DEPTHS))]
    norms = (restated_nat.layer(f"norm{level}", width) for level, width in enumerate(widths))
    weights = restated_nat.drawn((*restated_nat.shapes(1), *chain(*norms)))
    heads = theirs.Container(
        decode_head=theirs.UPerHead(widths, 8, (1, 2, 3, 6), CLASSES + 1),
        auxiliary_head=theirs.fcn_head(widths[0], 6, CLASSES + 1),
    )
    state = {f"backbone.{name}": value for name, value in weights.items()} | loud(heads).state_dict()
    settings = (f"+host.{name}={value}" for name, value in restated_nat.HOST.items() if name != "mlp_ratio")
    host = ("host=nat_micro", "host.stages=null", *(text.replace(" ", "") for text in settings))
    region = f"op.region.kernel={restated_nat.KERNEL}"
    config = configure("op=na", region, *SEGMENTATION[len(HOST) :], *host)
    model = tasks.of_run(config).build(config).eval()
    model.load_state_dict(dense.convert(model, state))
    images = torch.randn(2, 1, 50, 76)
    maps = restated_nat.maps(weights, images, [[1] * depth for depth in restated_nat.DEPTHS])
    for level, (found, expected) in enumerate(zip(model.features(images), maps, strict=True)):
        close(found.permute(0, 2, 3, 1), restated_nat.norm(weights, f"norm{level}", expected))


def test_elsas_backbone_keeps_its_names_within_a_detector() -> None:
    config = configure("op=elsa", *DETECTION)
    model = tasks.of_run(config).build(config)
    state = {name: value for name, value in model.state_dict().items() if name.startswith(dense.HOST)}
    authors: dict[str, Tensor] = {}
    for name, value in state.items():
        name = name.replace(dense.HOST, "backbone.")
        path, _, leaf = name.rpartition(".weights.query_key.")
        if path:  # one convolution of query, key and value
            both = torch.cat([value, state[f"{path.replace('backbone.', dense.HOST)}.value.{leaf}"]])
            authors[f"{path}.pre_proj.{leaf}"] = both[..., None, None] if both.ndim > 1 else both
        elif name.endswith(".ghost.add"):  # lambda is 0: the only table
            authors[name.replace("ghost.add", "ghost_head")] = value.unflatten(-1, (7, 7))[None]
        elif not re.search(r"\.attn\.value\.", name):
            for mine, other in (
                ("weights.mix", "attn.0"),
                ("weights.expand", "attn.2"),
                ("output", "post_proj"),
            ):
                name = name.replace(f".attn.{mine}.", f".attn.{other}.")
            name = name.replace("layers.1.downsample", "layers.0.downsample")
            authors[name] = value
    there = {
        **detector(1).state_dict(),
        **{f"backbone.norm{i}.bias": torch.ones(w) for i, w in enumerate(WIDTHS)},
    }
    whole = {name: value for name, value in there.items() if not re.match(r"backbone\.(?!norm)", name)}
    converted = dense.convert(model, {**authors, **whole})
    assert all(torch.equal(converted[name], value) for name, value in state.items())


def test_what_does_not_fit_is_named_and_counted() -> None:
    here, _ = ours(*DETECTION)
    state = detector(1).state_dict()
    del state["neck.fpn_convs.0.conv.bias"]
    state |= {f"backbone.stages.7.blocks.{number}.norm1.weight": torch.ones(3) for number in range(9)}
    state["rpn_head.rpn_cls.bias"] = torch.ones(5)
    with pytest.raises(UserError) as raised:
        dense.convert(here, state)
    told = str(raised.value)
    assert re.search(r"9 without a place: .* and 5 more", told)
    assert "1 missing: heads.pyramid.fusion.layer_blocks.0.0.bias" in told
    assert "1 of another shape: heads.proposals.head.cls_logits.bias (5,) instead of (3,)" in told
    assert len(told.splitlines()) <= 6


def test_a_file_is_converted_by_the_command_line_and_its_backbone_begins_a_run(
    ablate: Callable, tmp_path: Path
) -> None:
    there = detector(1)
    torch.save({"meta": {"CLASSES": ("a", "b")}, "state_dict": there.state_dict()}, tmp_path / "theirs.pth")
    done = ablate("convert", "theirs.pth", "-o", "ours.pt", "op=lsa", *DETECTION)
    assert done.code == 0, done.err
    written = torch.load(tmp_path / "ours.pt", weights_only=True)["state_dict"]
    here, _ = ours(*DETECTION)
    here.load_state_dict(written)
    small = ("recipe=debug", "recipe.epochs=1", "data.train=8", "data.validation=4", "data.test=4")
    for name in ("theirs.pth", "ours.pt"):
        config = configure("op=lsa", *SEGMENTATION, *small, f"task.init={tmp_path / name}")
        tasks.initial.resolve(config)
        model = tasks.of_run(config).build(config)
        tasks.of_run(config).begin(model, config)
        begun = model.features.model.state_dict()
        assert all(torch.equal(value, written[f"{dense.HOST}{key}"]) for key, value in begun.items())
    refused = ablate("convert", "theirs.pth", "-o", "no.pt", "op=lsa", *HOST)
    assert refused.code == 2
    assert "give --model NAME, or task=mask_rcnn" in refused.err
    other = ablate("convert", "theirs.pth", "-o", "no.pt", "op=lsa", *SEGMENTATION)
    assert other.code == 2
    assert "without a place" in other.err
    assert not (tmp_path / "no.pt").exists()
