"""Classification gives the figures that it gave before tasks were a choice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy

from ablate.store import metrics
from ablate.store.folder import RunFolder
from ablate.store.identity import pair_key, signature
from ablate.tasks import get

SMOOTH = ("recipe.label_smoothing=0.1", "recipe.accumulate=2")
# Signature, and training and validation loss of the second epoch, as they were without tasks. Digits after
# the third belong to the processor that they were computed on: two kinds of CPU differ by 3e-4.
BEFORE = {
    ("op=lsa",): ("ffc11e39727a", (0.729539, 0.696086)),
    ("op=conv", "host=resnet_micro", "recipe.label_smoothing=0.1"): ("bef02e492131", (0.614673, 0.430466)),
    ("op=elsa", "recipe.ema_decay=0.9", *SMOOTH): ("d895dd2aaf57", (0.839866, 0.739949)),
}


@pytest.mark.parametrize("overrides", BEFORE)
def test_runs_are_what_they_were(overrides: tuple[str, ...], ablate: Callable, tmp_path: Path) -> None:
    done = ablate("train", "recipe=debug", "data=synthetic", "infra.threads=1", *overrides)
    assert done.code == 0, done.err
    name, losses = BEFORE[overrides]
    folder = RunFolder(tmp_path / "runs" / name)
    last = folder.metrics()[-1]
    assert [last["train_loss"], last["validation_loss"]] == pytest.approx(losses, rel=1e-3)


def test_mixed_images_have_mixed_targets() -> None:
    """timm's mixing and loss, from the same draws."""
    recipe: Any = SimpleNamespace(mixup=0.8, cutmix=1.0, label_smoothing=0.1)
    splits: Any = SimpleNamespace(num_classes=3)
    objective = get("classification").objective({}, recipe, splits)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    images, labels = torch.randn(4, 1, 4, 4), torch.tensor([0, 1, 2, 0])
    mix = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=3)
    for seed in range(6):  # mixup and cutmix are chosen by a draw
        np.random.seed(seed)
        found = objective(network, (images.clone(), labels), torch.contiguous_format)
        np.random.seed(seed)
        mixed, targets = mix(images.clone(), labels)
        assert torch.equal(found, SoftTargetCrossEntropy()(network(mixed), targets))


def test_the_default_task_is_no_part_of_an_identity() -> None:
    config = {"op": {"name": "lsa"}, "seed": 1}
    for identity in (signature, pair_key):
        assert identity({**config, "task": {"name": "classification"}}) == identity(config)
        assert identity({**config, "task": {"name": "segmentation"}}) != identity(config)
        assert identity({**config, "task": {"name": "classification", "more": 1}}) != identity(config)


def test_metrics_are_found_by_their_columns() -> None:
    assert metrics.find("test_top1").text(93.4) == "top-1 93.40 %"
    assert not metrics.find("validation_loss").higher
    assert metrics.find("test_anything").words == "anything"
    assert metrics.of_columns(["epoch", "validation_top1"]) is metrics.TASKS["classification"]
    assert metrics.of_columns(["epoch"]) is None
