"""Settings of a recipe that contradict one another, and schedules that do what their options say."""

from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ablate.configuration import conf_dir
from ablate.errors import UserError
from ablate.training import optimization
from ablate.training.consistency import NEEDED, SCHEDULE_OPTIONS
from ablate.training.recipe import Recipe, read

MICRO: dict[str, Any] = yaml.safe_load((conf_dir() / "recipe" / "micro.yaml").read_text())
EXAMPLES = {"step": {"decay_epochs": 4}, "multistep": {"decay_milestones": [3, 8]}, "poly": {"power": 0.9}}
WITHOUT_OPTIONS = {  # recipes from before there were such settings
    *("micro", "debug", "swin_imagenet", "volo_imagenet", "lesa_imagenet", "convnext_imagenet")
}
RECIPES = sorted(path.stem for path in (conf_dir() / "recipe").glob("*.yaml"))


def recipe(**settings: Any) -> Recipe:
    return read({**MICRO, "epochs": 10, **settings})


@pytest.mark.parametrize("name", RECIPES)
def test_no_named_recipe_contradicts_itself(name: str) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("train", [f"recipe={name}"]).recipe)
    if name in WITHOUT_OPTIONS:
        later = {"schedule_options", "iterations", "warmup_iterations"}
        assert not later & set(config), "they would be part of the signature of every run"
    optimization.check(read(config))


@pytest.mark.parametrize("schedule", optimization.SCHEDULES)
def test_a_schedule_that_is_accepted_reaches_its_height_and_comes_down(schedule: str) -> None:
    chosen = recipe(schedule=schedule, schedule_options=EXAMPLES.get(schedule, {}), warmup_epochs=2)
    optimization.check(chosen)
    optimizer = optimization.optimizer(torch.nn.Linear(1, 1), chosen)
    moving = optimization.schedule(optimizer, chosen, 5)
    rates = []
    for step in range(10 * 5):
        moving.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] == chosen.warmup_learning_rate
    assert max(rates) > 0.8 * chosen.learning_rate
    assert rates[-1] < 0.15 * chosen.learning_rate
    if schedule == "multistep":
        # timm lowers the rate one step before the epoch
        at = [epoch for epoch in range(3, 10) if rates[5 * epoch] < 0.5 * rates[5 * epoch - 2]]
        assert at == EXAMPLES["multistep"]["decay_milestones"]


def test_iterations_end_a_training_within_its_last_epoch_and_schedules_count_them() -> None:
    """mmcv's formulas: linear warm-up from a ratio, then power 1 to 0, or steps at iterations."""
    poly = {"schedule": "poly", "schedule_options": {"power": 1.0}, "min_learning_rate": 0.0}
    steps = {"schedule": "multistep", "schedule_options": {"decay_milestones": [11, 20], "decay_rate": 0.1}}
    length = {"epochs": None, "iterations": 23, "warmup_epochs": 0, "warmup_iterations": 5}
    low, high = 2e-9, 2e-3
    for settings in (poly, steps):
        chosen = recipe(**settings, **length, warmup_learning_rate=low)
        optimization.check(chosen)
        assert chosen.steps(7) == 23
        optimizer = optimization.optimizer(torch.nn.Linear(1, 1), chosen)
        moving = optimization.schedule(optimizer, chosen, 7)
        for step in range(23):
            moving.step_update(step)
            falling = 1 - step / 23 if settings is poly else 0.1 ** ((step >= 10) + (step >= 19))
            expected = low + step / 5 * (high - low) if step < 5 else high * falling
            assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-9), step


def test_a_warm_up_in_iterations_goes_with_epochs_and_milestones_in_epochs() -> None:
    steps = {"schedule": "multistep", "schedule_options": {"decay_milestones": [8, 9], "decay_rate": 0.1}}
    chosen = recipe(**steps, warmup_epochs=0, warmup_iterations=3)
    optimization.check(chosen)
    optimizer = optimization.optimizer(torch.nn.Linear(1, 1), chosen)
    moving = optimization.schedule(optimizer, chosen, 7)
    rates = []
    for step in range(70):
        moving.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] == 1e-6
    assert rates[3:55] == [2e-3] * 52
    assert rates[55:] == pytest.approx([2e-4] * 7 + [2e-5] * 8)


def test_options_are_known_for_every_schedule() -> None:
    assert set(SCHEDULE_OPTIONS) == set(optimization.SCHEDULES)
    assert all(name in SCHEDULE_OPTIONS[schedule] for schedule, (name, *_) in NEEDED.items())


CONTRADICTIONS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "two lengths": ({"iterations": 7}, ("epochs=10", "iterations=7", "null")),
    "no length": ({"epochs": None}, ("epochs=None", "iterations=None")),
    "no iterations": ({"epochs": None, "iterations": 0}, ("iterations=0", "1 or more")),
    "two warm-ups": ({"warmup_iterations": 7}, ("warmup_epochs=0.3", "warmup_iterations=7")),
    "a negative warm-up": ({"warmup_epochs": 0, "warmup_iterations": -1}, ("-1 is negative",)),
    "a warm-up beyond the iterations": (
        {"epochs": None, "iterations": 7, "warmup_epochs": 0, "warmup_iterations": 7},
        ("warmup_iterations=7", "below 7"),
    ),
    "milestones beyond the iterations": (
        {
            "schedule": "multistep",
            "schedule_options": {"decay_milestones": [7]},
            "epochs": None,
            "iterations": 7,
        },
        ("decay_milestones=[7]", "iterations=7"),
    ),
    "long warm-up": ({"warmup_epochs": 20}, ("warmup_epochs=20", "epochs=10")),
    "warm-up as long as training": ({"warmup_epochs": 10}, ("warmup_epochs=10", "epochs=10")),
    "warm-up that falls": ({"warmup_learning_rate": 1}, ("warmup_learning_rate=1", "learning_rate=0.002")),
    "minimum above": ({"min_learning_rate": 1}, ("min_learning_rate=1", "learning_rate=0.002")),
    "poly without power": ({"schedule": "poly"}, ("+recipe.schedule_options.power=",)),
    "step without epochs": ({"schedule": "step"}, ("+recipe.schedule_options.decay_epochs=",)),
    "multistep without milestones": ({"schedule": "multistep"}, ("decay_milestones=[",)),
    "late step": (
        {"schedule": "step", "schedule_options": {"decay_epochs": 30}},
        ("decay_epochs=30", "epochs=10"),
    ),
    "late milestones": (
        {"schedule": "multistep", "schedule_options": {"decay_milestones": [10, 20]}},
        ("decay_milestones=[10, 20]", "epochs=10"),
    ),
    "milestones that are no list": (
        {"schedule": "multistep", "schedule_options": {"decay_milestones": 3}},
        ("a list of epochs",),
    ),
    "power of another schedule": ({"schedule_options": {"power": 2}}, ("'power'", "k_decay")),
    "power that grows": ({"schedule": "poly", "schedule_options": {"power": -1}}, ("-1", "more than 0")),
    "rate given twice": ({"optimizer_options": {"lr": 1.0}}, ("optimizer_options", "refused")),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_settings_that_contradict_are_refused_with_both(case: str) -> None:
    settings, expected = CONTRADICTIONS[case]
    with pytest.raises(UserError) as refused:
        optimization.check(recipe(**settings))
    assert refused.value.way_out
    for words in expected:
        assert words in str(refused.value)
