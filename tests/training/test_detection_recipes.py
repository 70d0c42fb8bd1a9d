"""Published recipes for detection: their learning rates, step by step, and that COCO accepts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ablate import data
from ablate.configuration import conf_dir
from ablate.errors import UserError
from ablate.training import optimization
from ablate.training.recipe import read

IMAGES = 112_309  # of train2017 less the hold-out and images without annotations; ±20
RECIPES = {  # images per step, learning rate, epochs, milestones
    "mask_rcnn_1x": (16, 1e-4, 12, (8, 11)),
    "mask_rcnn_3x": (16, 1e-4, 36, (27, 33)),
    "cascade_1x": (16, 1e-4, 12, (8, 11)),
    "cascade_3x": (16, 1e-4, 36, (27, 33)),
    "lesa_mask_rcnn": (8, 1e-2, 20, (16, 19)),
}


@pytest.mark.parametrize("name", RECIPES)
def test_learning_rates_are_the_published_ones(name: str, tmp_path: Path) -> None:
    batch, rate, epochs, (first, second) = RECIPES[name]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("train", [f"recipe={name}"]), resolve=True)
    recipe = read(config["recipe"])
    assert (recipe.name, recipe.batch_size, recipe.epochs) == (name, batch, epochs)
    optimization.check(recipe)
    coco = {"name": "coco", "size": 1024 if name.startswith("lesa") else None}
    with pytest.raises(UserError, match="COCO 2017 not found"):
        data.check(coco, recipe.augment, batch_size=batch, data_root=tmp_path)  # all but the data is accepted

    optimizer = optimization.optimizer(torch.nn.Linear(1, 1), recipe)
    if name.startswith("lesa"):
        assert (optimizer.param_groups[0]["momentum"], optimizer.param_groups[0]["nesterov"]) == (0.9, False)
    steps = IMAGES // batch
    schedule = optimization.schedule(optimizer, recipe, steps)

    def at(step: int) -> float:
        schedule.step_update(step)
        return float(optimizer.param_groups[0]["lr"])

    assert optimizer.param_groups[0]["lr"] == pytest.approx(rate / 1000)
    assert at(0) == pytest.approx(rate / 1000)
    assert at(250) == pytest.approx(rate / 2, rel=3e-3)
    assert 0.99 * rate < at(499) < 1.001 * rate
    assert at(500) == pytest.approx(rate, rel=1e-12)
    for step, expected in (
        (first * steps - 2, rate),
        (first * steps - 1, rate / 10),  # timm's, one step before the epoch
        (first * steps, rate / 10),
        (second * steps - 2, rate / 10),
        (second * steps, rate / 100),
        (epochs * steps - 1, rate / 100),
    ):
        assert at(step) == pytest.approx(expected, rel=1e-12)
