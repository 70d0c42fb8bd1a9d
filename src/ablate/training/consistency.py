"""Settings of a recipe that are valid alone and contradict one another, refused at submission.

A run that was submitted before is resumed as it is: only `optimization.check` calls this.
"""

from __future__ import annotations

from typing import Any

from ablate.errors import UserError, unknown
from ablate.training.recipe import Recipe

# What a schedule may be given in recipe.schedule_options, in timm's names but for poly's power.
SCHEDULE_OPTIONS: dict[str, tuple[str, ...]] = {
    "cosine": ("k_decay",),
    "tanh": (),
    "step": ("decay_epochs", "decay_rate"),
    "multistep": ("decay_milestones", "decay_rate"),
    "poly": ("power", "k_decay"),
}
# The option without which a schedule has a default of timm that hardly any training means.
NEEDED = {
    "step": ("decay_epochs", "timm's default of 90 epochs", "30"),
    "multistep": ("decay_milestones", "timm's default of 90, 180 and 270 epochs", "[30,60,80]"),
    "poly": ("power", "timm's default of 0.1, which hardly lowers the rate before the last steps", "0.9"),
}


def check(recipe: Recipe) -> None:
    """Refuse a recipe in which one setting keeps another from having its effect.

    Raises:
        UserError: with both settings and a value that would do.
    """
    _check_rates(recipe)
    _check_schedule(recipe)


def _check_rates(recipe: Recipe) -> None:
    if recipe.epochs is not None and recipe.warmup_epochs >= recipe.epochs:
        raise UserError(
            f"recipe.warmup_epochs={recipe.warmup_epochs:g} with recipe.epochs={recipe.epochs}: the learning "
            "rate would never reach its height",
            f"use recipe.warmup_epochs={recipe.epochs / 15:.2g} or another number below {recipe.epochs}",
        )
    if recipe.iterations is not None and (recipe.warmup_iterations or 0) >= recipe.iterations:
        raise UserError(
            f"recipe.warmup_iterations={recipe.warmup_iterations} with "
            f"recipe.iterations={recipe.iterations}: the learning rate would never reach its height",
            f"use a number below {recipe.iterations}",
        )
    warmup = recipe.warmup_epochs or recipe.warmup_iterations
    if warmup and recipe.warmup_learning_rate > recipe.learning_rate:
        raise UserError(
            f"recipe.warmup_learning_rate={recipe.warmup_learning_rate:g} is above "
            f"recipe.learning_rate={recipe.learning_rate:g}: the rate would fall during the warm-up",
            "use a lower recipe.warmup_learning_rate, or no warm-up",
        )
    decays_to_it = recipe.schedule in ("cosine", "tanh", "poly")
    if decays_to_it and recipe.min_learning_rate > recipe.learning_rate:
        raise UserError(
            f"recipe.min_learning_rate={recipe.min_learning_rate:g} is above "
            f"recipe.learning_rate={recipe.learning_rate:g}: the rate would rise until the end",
            "use a lower recipe.min_learning_rate",
        )


def _check_schedule(recipe: Recipe) -> None:
    known, given = SCHEDULE_OPTIONS[recipe.schedule], recipe.schedule_options
    for name in given:
        if name not in known:
            raise unknown(f"option of recipe.schedule={recipe.schedule}:", str(name), known)
    if recipe.schedule not in NEEDED:
        return
    name, default, example = NEEDED[recipe.schedule]
    if name not in given:
        raise UserError(
            f"recipe.schedule={recipe.schedule} without its {name} would use {default}",
            f"set it: +recipe.schedule_options.{name}={example}",
        )
    for number in (*_numbers(name, given[name]), *_numbers("decay_rate", given.get("decay_rate", 0.1))):
        if number <= 0:
            raise UserError(
                f"recipe.schedule_options: {number:g} in {dict(given)} is not positive", "use more than 0"
            )
    first = min(_numbers(name, given[name]))
    unit, length = (
        ("epochs", recipe.epochs) if recipe.iterations is None else ("iterations", recipe.iterations)
    )
    assert length is not None
    if recipe.schedule != "poly" and first >= length:
        raise UserError(
            f"recipe.schedule_options.{name}={given[name]} with recipe.{unit}={length}: the learning "
            "rate would never be lowered",
            f"begin before {length} {unit}",
        )


def _numbers(name: str, value: Any) -> list[float]:
    values = list(value) if isinstance(value, list | tuple) and name == "decay_milestones" else [value]
    wrong = [each for each in values if isinstance(each, bool) or not isinstance(each, int | float)]
    if wrong or not values or (name == "decay_milestones" and values == [value]):
        expected = "a list of epochs, e.g. [30,60,80]" if name == "decay_milestones" else "a number"
        raise UserError(f"recipe.schedule_options.{name}={value!r}", f"use {expected}")
    return [float(each) for each in values]
