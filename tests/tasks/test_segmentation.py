"""Segmentation: figures against independent judges, and published sizes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tasks.configured import configure
from torch import nn
from torchvision.models.segmentation.deeplabv3 import ASPPPooling
from torchvision.models.segmentation.fcn import FCNHead

from ablate import data
from ablate.data import OUTSIDE
from ablate.tasks import get, segmentation, upernet
from ablate.training import loop

TINY = (
    *("task=segmentation", "recipe=debug", "data.train=32", "data.validation=12", "data.test=12"),
    *("task.channels=8", "task.auxiliary_channels=8", "infra.tracking=none", "infra.threads=1"),
)
SIZES = {  # millions of parameters with 150 classes: Swin's of mmsegmentation, the others' of their authors
    ("lsa", "swin_tiny"): 59.94,
    ("lsa", "swin_small"): 81.26,
    ("elsa", "swin_tiny"): 61,
    ("elsa", "swin_small"): 85,
    ("na", "nat_mini"): 50,
    ("na", "nat_base"): 123,
}


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 13), st.integers(1, 9), st.integers(1, 6))
def test_pooling_is_pytorchs(height: int, width: int, side: int) -> None:
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    found = upernet.pooled(x, side)
    torch.testing.assert_close(found, F.adaptive_avg_pool2d(x, side), rtol=1e-6, atol=1e-6)


def copied(ours: nn.Module, theirs: nn.Module) -> nn.Module:
    """Ours with the state of theirs, whose tensors have the same order."""
    values = list(theirs.state_dict().values())
    ours.load_state_dict(dict(zip(ours.state_dict(), values, strict=True)))
    return ours.eval()


@torch.no_grad()
def test_heads_are_torchvisions_where_they_coincide() -> None:
    """The auxiliary head, and a branch of the pyramid that pools the whole map."""
    torch.manual_seed(0)
    x = torch.randn(2, 16, 5, 7)
    theirs = FCNHead(16, 3).eval()
    found = copied(upernet.FCN(16, 4, 3, 0.1), theirs)(x)
    torch.testing.assert_close(found, theirs(x), rtol=1e-6, atol=1e-6)
    pooling = ASPPPooling(16, 4).eval()
    branch = copied(upernet.UPerNet((8, 16), 4, (1,), 3, 0.0).pooling[0], pooling)
    found = upernet.enlarged(branch(upernet.pooled(x, 1)), x.shape[-2:])
    torch.testing.assert_close(found, pooling(x), rtol=1e-6, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(0, 2**31))
def test_intersection_over_union_is_that_of_a_table_of_pixels(classes: int, seed: int) -> None:
    """pandas counts; classes that occur nowhere, and pixels of no class, are left out."""
    random = np.random.default_rng(seed)
    truth, predicted = random.integers(0, classes, (2, 3, 5, 7))
    truth[random.random(truth.shape) < 0.2] = OUTSIDE
    table = segmentation.confusion(torch.tensor(predicted), torch.tensor(truth), classes).double()
    kept = truth != OUTSIDE
    counted = pd.crosstab(truth[kept], predicted[kept]).stack()
    shares = []
    for label in sorted({*truth[kept], *predicted[kept]}):
        hits = counted.get((label, label), 0)
        union = (truth[kept] == label).sum() + (predicted[kept] == label).sum() - hits
        shares.append(hits / union)
    assert segmentation.mean_iou(table) == pytest.approx(100 * np.mean(shares), abs=1e-5)
    accuracy = 100 * (truth == predicted)[kept].mean()
    assert segmentation.pixel_accuracy(table) == pytest.approx(accuracy, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(0, 2**31))
def test_counts_and_intersection_over_union_are_scikit_learns(classes: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    truth, predicted = random.integers(0, classes, (2, 3, 5, 7))
    truth[random.random(truth.shape) < 0.2] = OUTSIDE
    table = segmentation.confusion(torch.tensor(predicted), torch.tensor(truth), classes)
    kept, labels = truth != OUTSIDE, range(classes)
    expected = sklearn.metrics.confusion_matrix(truth[kept], predicted[kept], labels=labels)
    assert np.array_equal(table.numpy(), expected)
    occurring = sorted({*truth[kept], *predicted[kept]})
    shares = sklearn.metrics.jaccard_score(truth[kept], predicted[kept], labels=occurring, average=None)
    np.testing.assert_allclose(segmentation.iou(table.double())[occurring], shares, rtol=0, atol=1e-12)
    assert segmentation.mean_iou(table.double()) / 100 == pytest.approx(shares.mean(), abs=1e-6)


def test_the_figures_of_a_split_are_scikit_learns() -> None:
    """Of an untrained network over several batches of scenes, as `evaluate` gives them."""
    config = configure(*TINY, "op=dwconv")
    model = loop.build_model(config).eval()
    test = data.create(config["data"], seed=0, batch_size=4, augment={}, annotation="map").test
    truth, predicted = [], []
    with torch.no_grad():
        for images, maps in test.epoch(0):
            truth.append(maps[maps != OUTSIDE])
            predicted.append(model(images).argmax(1)[maps != OUTSIDE])
    pair = torch.cat(truth).numpy(), torch.cat(predicted).numpy()
    figures = get("segmentation").evaluate(model, test, torch.autocast("cpu", enabled=False))
    miou = sklearn.metrics.jaccard_score(*pair, average="macro", labels=np.unique(pair), zero_division=0)
    assert figures.metrics["miou"] / 100 == pytest.approx(miou, abs=1e-6)
    accuracy = sklearn.metrics.accuracy_score(*pair)
    assert figures.metrics["pixel_accuracy"] / 100 == pytest.approx(accuracy, abs=1e-6)


def test_the_loss_is_pytorchs_over_all_pixels() -> None:
    logits, maps = torch.randn(2, 4, 5, 6), torch.randint(-1, 4, (2, 5, 6))
    expected = F.cross_entropy(logits, maps, ignore_index=OUTSIDE, reduction="none").mean()
    torch.testing.assert_close(segmentation.cross_entropy(logits, maps), expected)
    halves = [segmentation.cross_entropy(logits[i : i + 1], maps[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(sum(halves) / 2, expected)  # two processes are one


@pytest.mark.parametrize(("op", "host"), SIZES)
def test_published_sizes(op: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """UPerNet with 512 channels on ADE20K; ELSA keeps Swin's attention in the last stage."""
    published = ("task.channels=512", "task.auxiliary_channels=256")
    stages = ("host.stages=[1,2,3]",) if op == "elsa" else ()
    config = configure("task=segmentation", f"op={op}", f"host={host}", *published, *stages)
    ade20k = data.DataInfo(150, (3, 512, 512), annotation="map")
    monkeypatch.setattr(data, "info", lambda config: ade20k)
    with torch.device("meta"):
        model = get("segmentation").build(config)
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert count == pytest.approx(SIZES[op, host], abs=0.005 if op == "lsa" else 0.5)  # rounded to a million


def test_exports_and_compiles_for_every_batch_and_leaves_nothing_behind() -> None:
    """Tensors of a trace must not stay behind: eager mode runs afterwards."""
    model = loop.build_model(configure(*TINY, "op=dwconv")).eval()
    images = torch.randn(4, 1, 64, 64)
    with torch.no_grad():
        batch = {0: torch.export.Dim("batch")}
        exported = torch.export.export(model, (images,), dynamic_shapes=(batch,)).module()
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        try:
            for number in (3, 4):
                expected = model(images[:number])
                assert torch.equal(exported(images[:number]), expected)
                torch.testing.assert_close(compiled(images[:number]), expected, rtol=1e-5, atol=1e-5)
        finally:
            torch._dynamo.reset()
