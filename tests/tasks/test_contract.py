"""A task of another kind goes the whole way: its own metrics, of which less is better."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ablate import tasks
from ablate.store import metrics
from ablate.store.folder import RunFolder
from ablate.store.manifest import load
from ablate.store.metrics import Metric, TaskMetrics
from ablate.tasks.classification import Classification
from ablate.tasks.contract import Figures

NAME = "brightness"
TINY = ("recipe=debug", "data=synthetic", "data.train=64", f"task.name={NAME}")


class Brightness(Classification):
    """Predicts the mean of an image's pixels."""

    metrics = TaskMetrics((Metric("error", "error", higher=False, digits=4),), "error", "error")

    def network_arguments(self, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        host, arguments = super().network_arguments(config)
        return host, {**arguments, "num_classes": 1}

    def objective(self, config: Any, recipe: Any, splits: Any) -> Any:
        return lambda network, batch, layout: self._error(network, batch[0])

    @torch.no_grad()
    def evaluate(
        self, model: nn.Module, loader: Any, precision: Any, on_batch: Any = None, processes: Any = None
    ) -> Figures:
        model.eval()
        sums = [
            [float(self._error(model, images)) * len(images), len(images)] for images, _ in loader.epoch(0)
        ]
        total, count = (sum(column) for column in zip(*sums, strict=True))
        return Figures({"error": total / count}, {})

    def _error(self, network: nn.Module, images: torch.Tensor) -> torch.Tensor:
        return (network(images)[:, 0] - images.mean((1, 2, 3))).square().mean()


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(metrics.TASKS, NAME, Brightness.metrics)
    monkeypatch.setitem(tasks._TASKS, NAME, Brightness())


def test_every_page_speaks_of_the_metrics_of_the_task(ablate: Callable, tmp_path: Path) -> None:
    done = ablate("train", "-m", "op=dwconv,lsa", "seed=0,1", "recipe.epochs=3", *TINY, "study.name=s")
    assert done.code == 0, done.err
    assert "validation error 0." in done.err
    assert load(tmp_path / "runs", "s").metric == "test_error"
    for path in (tmp_path / "runs").glob("*/result.json"):
        folder = RunFolder(path.parent)
        curve = [line["validation_error"] for line in folder.metrics()]
        result = json.loads(path.read_text())
        assert result["best_epoch"] == curve.index(min(curve)) + 1
        assert result["validation_error"] == min(curve)
        assert not [name for name in result if "top1" in name]
    assert "best error" in ablate("status", "s").out
    assert ablate("report", "s").code == 0
    report = tmp_path / "runs" / "studies" / "s" / "report"
    page = (report / "index.html").read_text()
    assert "Test error" in page
    assert "top-1" not in page
    assert "accuracy" not in page.replace("accuracy_macs", "").replace("time_to_accuracy", "").lower()
    assert (report / "results.csv").read_text().splitlines()[0].count("test_error") == 1
    one = ablate("train", "op=dwconv", "recipe.epochs=3", *TINY)
    assert "test error 0." in one.err
    refused = ablate("train", "op=dwconv", *TINY, "study.metric=test_top1")
    assert refused.code == 2
    assert "test_error" in refused.err


def test_an_unknown_task_is_refused_by_name(ablate: Callable, tmp_path: Path) -> None:
    refused = ablate("train", "op=dwconv", "recipe=debug", "data=synthetic", "task.name=brightnes")
    assert refused.code == 2
    assert "did you mean 'brightness'?" in refused.err
    assert not (tmp_path / "runs").exists()
