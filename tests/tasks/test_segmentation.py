"""Segmentation: figures against independent judges, published sizes, and runs as of every task."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from tests.training.interrupted import StopAfter

from ablate import data
from ablate.configuration import conf_dir
from ablate.data import OUTSIDE
from ablate.execution.execute import execute
from ablate.store.folder import RunFolder
from ablate.store.manifest import load
from ablate.tasks import get, segmentation, upernet
from ablate.training import checkpoint, loop
from ablate.training.progress import Silent

TINY = (
    *("task=segmentation", "recipe=debug", "data.train=32", "data.validation=12", "data.test=12"),
    *("task.channels=8", "task.auxiliary_channels=8", "infra.tracking=none", "infra.threads=1"),
)
SIZES = {  # millions of parameters with 150 classes: Swin's of mmsegmentation, ELSA's of its paper
    ("lsa", "swin_tiny"): 59.94,
    ("lsa", "swin_small"): 81.26,
    ("elsa", "swin_tiny"): 61,
    ("elsa", "swin_small"): 85,
}


def configure(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("train", list(overrides)), resolve=True)
    return config


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 13), st.integers(1, 9), st.integers(1, 6))
def test_pooling_is_pytorchs(height: int, width: int, side: int) -> None:
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    found = upernet.pooled(x, side)
    torch.testing.assert_close(found, F.adaptive_avg_pool2d(x, side), rtol=1e-6, atol=1e-6)


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
    assert count == pytest.approx(SIZES[op, host], abs=0.5 if op == "elsa" else 0.005)


@pytest.mark.parametrize("host", ["swin_micro", "resnet_micro", "convnext_micro"])
def test_runs_of_one_seed_are_true_pairs_with_the_heads_and_every_weight_learns(host: str) -> None:
    models = [loop.build_model(configure(*TINY, f"op={op}", f"host={host}")) for op in ("dwconv", "elsa")]
    first, second = (dict(model.state_dict()) for model in models)
    shared = [name for name in first if name in second and first[name].shape == second[name].shape]
    heads = [name for name in shared if name.startswith(("head", "auxiliary"))]
    assert len(heads) > 20
    assert all(torch.equal(first[name], second[name]) for name in heads)
    for model in models:
        main, auxiliary = model.train()(torch.randn(2, 1, 64, 64))
        assert main.shape == auxiliary.shape == (2, 11, 64, 64)
        (main.square().sum() + auxiliary.square().sum()).backward()
        idle = [
            name for name, value in model.named_parameters() if value.requires_grad and value.grad is None
        ]
        assert not idle
        assert model.eval()(torch.randn(1, 1, 64, 64)).shape == (1, 11, 64, 64)


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


def test_from_a_sweep_to_a_report(ablate: Callable, tmp_path: Path) -> None:
    done = ablate("train", "-m", "op=dwconv,lsa", "seed=0,1", *TINY, "study.name=s")
    assert done.code == 0, done.err
    assert "validation mIoU" in done.err
    planned = load(tmp_path / "runs", "s")
    assert planned.metric == "test_miou"
    result = RunFolder(tmp_path / "runs" / planned.runs[0].signature).result()
    assert result is not None
    assert 0 < result["test_miou"] < result["test_pixel_accuracy"] < 100
    assert "best mIoU" in ablate("status", "s").out
    assert ablate("report", "s").code == 0
    assert "Test mIoU (%)" in (tmp_path / "runs/studies/s/report/index.html").read_text()
    looked = ablate("look", planned.runs[0].signature)
    assert looked.code == 0, looked.err


def test_a_run_interrupted_within_an_epoch_ends_with_the_same_bits(tmp_path: Path) -> None:
    config = configure(*TINY, "op=dwconv", "host.drop_path_rate=0.2", "infra.device=cpu")
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    execute(tmp_path / "whole", config, Silent())
    with pytest.raises(KeyboardInterrupt):
        execute(tmp_path / "parts", config, StopAfter(3))
    execute(tmp_path / "parts", config, Silent())
    whole, parts = (RunFolder(tmp_path / name) for name in ("whole", "parts"))
    assert len(whole.metrics()) == 2
    assert parts.metrics_path.read_bytes() == whole.metrics_path.read_bytes()
    mine, theirs = (checkpoint.load(folder.checkpoint_path)[0] for folder in (parts, whole))
    assert mine is not None
    assert theirs is not None
    assert all(torch.equal(mine.model[name], theirs.model[name]) for name in theirs.model)


def test_two_processes_train_as_one_to_rounding(tmp_path: Path) -> None:
    found = []
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        command = [sys.executable, "-m", "ablate", "train", "op=dwconv", *TINY, f"infra.devices={devices}"]
        done = subprocess.run(
            [*command, f"infra.runs_dir={folder}", "infra.device=cpu"],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=tmp_path,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        (path,) = folder.glob("*/metrics.jsonl")
        found.append(RunFolder(path.parent).metrics())
    for mine, theirs in zip(*found, strict=True):
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], rel=2e-4)
        assert mine["validation_loss"] == pytest.approx(theirs["validation_loss"], rel=2e-3)
        assert mine["validation_pixel_accuracy"] == pytest.approx(
            theirs["validation_pixel_accuracy"], abs=0.2
        )


REFUSED = {
    "data without maps": (["task=segmentation", "data=fashion_mini"], "this task needs map"),
    "maps without the task": (["data=fashion_scenes"], "task=segmentation"),
    "a host of one size": (["task=segmentation", "host=volo_micro"], "no feature maps for dense tasks"),
    "a single value": (["task=segmentation", "recipe.batch_size=1"], "a single value"),
    "a figure that a result has not": (
        ["task=segmentation", "study.metric=validation_pixel_accuracy"],
        "test_pixel_accuracy",
    ),
    "mixup": (["task=segmentation", "recipe.mixup=0.5"], "use recipe.mixup=0"),
    "a pool of nothing": (["task=segmentation", "task.pools=[0]"], "task.pools"),
    "an unknown setting": (["task=segmentation", "+task.chanels=3"], "did you mean 'task.channels'?"),
    "a setting of another task": (["+task.channels=3"], "unknown setting of task=classification: 'channels'"),
    "two tasks in one study": (
        ["-m", "task=classification,segmentation"],
        "compares its runs by one metric, test_top1",
    ),
    "the metric of another task": (["task=segmentation", "study.metric=test_top1"], "test_miou"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_way_out(case: str, ablate: Callable, tmp_path: Path) -> None:
    overrides, told = REFUSED[case]
    done = ablate("train", *overrides, "op=dwconv", "recipe=debug")
    assert done.code == 2, done.err
    assert told in done.err
    assert "→" in done.err
    assert not [*tmp_path.glob("runs/*/config.yaml"), *tmp_path.glob("runs/studies/*")]
