"""Optimiser and schedule of a recipe, both timm's."""

from __future__ import annotations

import inspect
from dataclasses import replace

import torch
from timm.optim import create_optimizer_v2, get_optimizer_class, param_groups_layer_decay
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn

from ablate.errors import UserError, unknown
from ablate.training import consistency, freezing
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
        any_network = replace(recipe, freeze=None, no_decay=None, layer_decay=None)
        schedule(optimizer(nn.Linear(1, 1), any_network), recipe, 1)
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

    What modules name in `frozen_parameters` is left out, and what `recipe.freeze` names.

    `in_one_kernel` requests the fused implementation; see `fused`.
    """
    options = dict(recipe.optimizer_options)
    if in_one_kernel:
        options["fused"] = True
    kept = _named(model, "no_weight_decay") | freezing.matching(model, recipe.no_decay, "recipe.no_decay")
    frozen = _named(model, "frozen_parameters") | freezing.matching(model, recipe.freeze, "recipe.freeze")
    scales = _scales(model, recipe.layer_decay)
    groups: dict[float, tuple[list[nn.Parameter], list[nn.Parameter]]] = {}  # by scale: decayed, not decayed
    for name, parameter in model.named_parameters():
        if name not in frozen:
            decayed, others = groups.setdefault(scales.get(name, 1.0), ([], []))
            (others if parameter.ndim <= 1 or name in kept else decayed).append(parameter)
    return create_optimizer_v2(
        [
            {"params": parameters, "weight_decay": decay, **({"lr_scale": scale} if scales else {})}
            for scale in sorted(groups, reverse=True)  # the first group has the recipe's learning rate
            for parameters, decay in zip(groups[scale], (recipe.weight_decay, 0.0), strict=True)
        ],
        opt=recipe.optimizer,
        lr=recipe.learning_rate,
        weight_decay=0.0,
        **options,
    )


def learning_rate(optimizer: torch.optim.Optimizer) -> float:
    """Return the learning rate of the last layer: earlier ones have less of it by `recipe.layer_decay`."""
    first = optimizer.param_groups[0]
    return float(first["lr"] / first.get("lr_scale", 1))


def check_parameters(model: nn.Module, recipe: Recipe) -> None:
    """Refuse patterns that match no parameter of a network, and a layer decay without layers.

    Raises:
        UserError: names the setting.
    """
    freezing.freeze(model, recipe.freeze)
    optimizer(model, recipe)


def _scales(model: nn.Module, layer_decay: float | None) -> dict[str, float]:
    """Return the factor of the learning rate of each parameter of a host; none without `layer_decay`.

    The layers are timm's groups of a network; the heads of a dense task train at the full rate.
    """
    if layer_decay is None or layer_decay == 1:
        return {}
    path, host = next(
        ((path, module) for path, module in model.named_modules() if hasattr(module, "group_matcher")),
        ("", model),
    )
    names = {id(parameter): f"{path}.{name}".lstrip(".") for name, parameter in host.named_parameters()}
    groups = param_groups_layer_decay(host, layer_decay=layer_decay)
    found = {names[id(one)]: float(group["lr_scale"]) for group in groups for one in group["params"]}
    if len(set(found.values())) < 2:
        raise UserError(
            f"recipe.layer_decay={layer_decay}: timm finds no layers in this host",
            "give the network a method group_matcher as timm's have, or use recipe.layer_decay=null",
        )
    return found


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
