"""Studies fabricated on disk, as training would have left them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ablate.store.files import write_json, write_text
from ablate.store.folder import FAILED, FINISHED, RunFolder
from ablate.store.identity import signature
from ablate.store.manifest import Manifest, PlannedRun

MACS = {"lsa": 12_310_000, "lsa_neighborhood": 12_310_000, "dwconv": 9_120_000, "dynamic_filter": 9_640_000}
EPOCHS = 20

Fabricate = Callable[..., Manifest]


def configuration(operator: str, seed: int) -> dict[str, Any]:
    """What a run's folder has in config.yaml, and its signature is computed from."""
    return {
        "op": {
            "name": operator,
            "channel": {"heads": "1x", "ghost_lambda": None},
            "region": {"name": "window"},
        },
        "host": {"name": "swin_micro"},
        "data": {"name": "fashion_mini"},
        "recipe": {"name": "micro"},
        "seed": seed,
    }


def fabricate_run(
    runs_dir: Path, run: PlannedRun, top1: float, state: str = FINISHED, error: str = ""
) -> None:
    """One run folder whose test accuracy is `top1`; unfinished ones stop half way."""
    folder = RunFolder(runs_dir / run.signature)
    folder.path.mkdir(parents=True)
    operator = run.factors.get("op", "lsa")
    epochs = EPOCHS if state == FINISHED else EPOCHS // 2
    write_text(folder.config_path, yaml.safe_dump(configuration(operator, run.seed)))
    status = {
        "state": state,
        "attempt": 1,
        "host": "node1",
        "epoch": epochs,
        "epochs": EPOCHS,
        "error": error or None,
    }
    write_json(folder.status_path, status)
    noise = np.random.default_rng(int(run.signature, 16) % 2**32)
    rise = top1 - 40 * np.exp(-np.arange(1, epochs + 1) / 4) + noise.normal(0, 0.3, epochs)
    records = [{"epoch": epoch, "validation_top1": float(top1)} for epoch, top1 in enumerate(rise, 1)]
    write_text(folder.metrics_path, "".join(json.dumps(record) + "\n" for record in records))
    versions = {"python": "3.11.7", "torch": "2.9.0"}
    hardware = {"cpu": "AMD EPYC", "threads": 1, "device": "cpu"}
    write_json(
        folder.environment_path,
        {"commit": "0123abc", "dirty": False, "versions": versions, "hardware": hardware},
    )
    if state == FINISHED:
        figures = {
            "test_top1": top1,
            "test_top5": 99.0,
            "parameters": 460_123,
            "throughput": 812.0,
            "macs": MACS.get(operator, 12_950_000),
        }
        write_json(folder.result_path, figures)


@pytest.fixture
def fabricate(tmp_path: Path) -> Fabricate:
    """A study from {operator: {seed: accuracy, or (state, error), or None for a missing run}}."""

    def build(top1: Mapping[str, Mapping[int, Any]], **manifest: Any) -> Manifest:
        runs = []
        for operator, seeds in top1.items():
            for seed, outcome in seeds.items():
                run = PlannedRun(
                    signature(configuration(operator, seed)), f"pair of {operator}", seed, {"op": operator}
                )
                runs.append(run)
                match outcome:
                    case None:
                        pass
                    case (state, error):
                        fabricate_run(tmp_path, run, 80.0, state, error)
                    case _:
                        fabricate_run(tmp_path, run, outcome)
        study = Manifest(**{"name": "quick", "factors": ["op"], "runs": runs, **manifest})
        study.save(tmp_path)
        return study

    return build


@pytest.fixture
def half_finished(fabricate: Fabricate) -> Manifest:
    """Three seeds of three conditions: one run failed, one missing, one pending."""
    return fabricate(
        {
            "lsa": {0: 84.0, 1: 84.5, 2: 83.5},
            "elsa": {0: 85.0, 1: 85.1, 2: (FAILED, "<script>alert('x')</script> & more")},
            "dwconv": {0: 83.0, 1: None, 2: ("pending", "")},
        },
        question="Is <b>100 %</b> of it in the filter_norm & heads?",
        command="ablate train -m study=quick",
    )
