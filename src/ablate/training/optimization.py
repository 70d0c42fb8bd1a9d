"""Optimiser and schedule of a recipe, both timm's."""

from __future__ import annotations

import inspect

import torch
from timm.optim import create_optimizer_v2, get_optimizer_class
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn

from ablate.errors import UserError, unknown
from ablate.training import consistency
from ablate.training.recipe import Recipe

SCHEDULES = ("cosine", "tanh", "step", "multistep", "poly")  # timm's that move at every step


def check(recipe: Recipe) -> None:
    """Refuse an optimiser, its options or a schedule that timm does not have, and settings that contradict.

    Raises:
        UserError: with timm's own words; see `consistency`.
    """
    if recipe.schedule not in SCHEDULES:
        raise unknown("recipe.schedule", recipe.schedule, SCHEDULES)
    consistency.check(recipe)
    try:
        schedule(optimizer(nn.Linear(1, 1), recipe), recipe, 1)
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"recipe.optimizer={recipe.optimizer} with {dict(recipe.optimizer_options)} is refused: {error}",
            "`timm.optim.list_optimizers()` names them; ~recipe.optimizer_options.NAME drops an option",
        ) from error


def fused(recipe: Recipe, device: torch.device) -> bool:
    """True if the optimiser updates all weights in one kernel.

    By default on CUDA, where PyTorch has such an implementation; `recipe.optimizer_options` may name another
    one (`fused` or `foreach`) on any device.
    """
    options = recipe.optimizer_options
    if "fused" in options or "foreach" in options:
        return bool(options.get("fused", False))
    if device.type != "cuda":
        return False
    kind = get_optimizer_class(recipe.optimizer.lower().removeprefix("lookahead_"), bind_defaults=False)
    return "fused" in inspect.signature(kind).parameters


def optimizer(model: nn.Module, recipe: Recipe, *, in_one_kernel: bool = False) -> torch.optim.Optimizer:
    """timm's optimiser, without weight decay of biases, norms and what modules name in `no_weight_decay`.

    What modules name in `frozen_parameters` is left out.

    `in_one_kernel` requests the fused implementation; see `fused`.
    """
    options = dict(recipe.optimizer_options)
    if in_one_kernel:
        options["fused"] = True
    names, frozen = _named(model, "no_weight_decay"), _named(model, "frozen_parameters")
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if name in frozen:
            continue
        (kept if parameter.ndim <= 1 or name in names else decayed).append(parameter)
    return create_optimizer_v2(
        [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": kept, "weight_decay": 0.0}],
        opt=recipe.optimizer,
        lr=recipe.learning_rate,
        weight_decay=0.0,
        **options,
    )


def _named(model: nn.Module, method: str) -> set[str]:
    """Return the names of parameters that modules return from a method."""
    names: set[str] = set()
    for path, module in model.named_modules():
        if callable(found := getattr(module, method, None)):
            names |= {f"{path}.{name}".lstrip(".") for name in found()}
    return names


def schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, updates: int) -> Scheduler:
    """timm's schedule over the whole training, moving at every one of `updates` steps an epoch.

    timm's "epoch" is one step here. Where the recipe has a number of iterations, the schedule's options count
    iterations too.
    """
    options = dict(recipe.schedule_options)
    unit = updates if recipe.iterations is None else 1
    if "power" in options:
        options["decay_rate"] = options.pop("power")  # timm's name for it
    if "decay_epochs" in options:
        options["decay_epochs"] *= unit
    if "decay_milestones" in options:
        options["decay_milestones"] = [milestone * unit for milestone in options["decay_milestones"]]
    warmup = recipe.warmup_iterations
    found, _ = create_scheduler_v2(
        optimizer,
        sched=recipe.schedule,
        num_epochs=recipe.steps(updates),
        warmup_epochs=recipe.warmup_epochs * updates if warmup is None else warmup,
        warmup_lr=recipe.warmup_learning_rate,
        min_lr=recipe.min_learning_rate,
        step_on_epochs=False,
        updates_per_epoch=1,
        **options,
    )
    return found
