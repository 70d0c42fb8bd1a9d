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
RECIPES = sorted(path.stem for path in (conf_dir() / "recipe").glob("*.yaml"))


def recipe(**settings: Any) -> Recipe:
    return read({**MICRO, "epochs": 10, **settings})


@pytest.mark.parametrize("name", RECIPES)
def test_no_named_recipe_contradicts_itself(name: str) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("train", [f"recipe={name}"]).recipe)
    assert "schedule_options" not in config, "it would be part of the signature of every run"
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


def test_options_are_known_for_every_schedule() -> None:
    assert set(SCHEDULE_OPTIONS) == set(optimization.SCHEDULES)
    assert all(name in SCHEDULE_OPTIONS[schedule] for schedule, (name, *_) in NEEDED.items())


CONTRADICTIONS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
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
