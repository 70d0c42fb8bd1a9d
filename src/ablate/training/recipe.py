"""A recipe: how a network is trained, with every setting checked before anything is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ablate.configuration import read_settings
from ablate.errors import UserError, unknown

PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Recipe:
    """Settings of `conf/recipe/<name>.yaml`.

    Attributes:
        epochs: length of the training; None if `iterations` says it.
        iterations: length in optimiser steps; the last epoch ends with the last of them.
        warmup_iterations: length of the warm-up in optimiser steps, instead of `warmup_epochs`.
        batch_size: images per optimiser step; `accumulate` cuts it into as many forward passes.
        schedule: timm's name (cosine, step, poly, …); it moves at every optimiser step.
        schedule_options: of the schedule, see `consistency`. Like `iterations` and `warmup_iterations`, they
            are in the recipe files that need them and in no other, which keeps the signatures of its runs.
        optimizer: timm's name; `optimizer_options` go to it as they are.
        clip_grad: largest norm of all gradients, None for no clipping.
        mixup, cutmix: α of the Beta distribution, 0 for none.
        ema_decay: of the averaged weights that are then evaluated, None for none.
        precision: of the forward pass; weights stay float32.
        frozen_stages: of the host, from the first, that keep the weights of `task.init`, with the stem.
        frozen_norms: batch norms of the host keep the statistics of `task.init`; their weights are trained.
        freeze: patterns of names of parameters that are not trained (`layers.0.*`); a batch norm of which all
            parameters are frozen keeps its statistics too.
        layer_decay: factor of the learning rate from each layer to the one before it, from the classifier on,
            by timm's groups; None for one learning rate.
        no_decay: patterns of names of more parameters without weight decay.
        augment: to the data set; the options differ between sets in memory and image folders.
    """

    name: str
    epochs: int | None
    batch_size: int
    accumulate: int
    optimizer: str
    optimizer_options: Mapping[str, Any]
    learning_rate: float
    weight_decay: float
    schedule: str
    warmup_epochs: float
    warmup_learning_rate: float
    min_learning_rate: float
    clip_grad: float | None
    label_smoothing: float
    mixup: float
    cutmix: float
    ema_decay: float | None
    precision: str
    augment: Mapping[str, Any]
    schedule_options: Mapping[str, Any] = field(default_factory=dict)
    iterations: int | None = None
    warmup_iterations: int | None = None
    frozen_stages: int = 0
    frozen_norms: bool = False
    freeze: tuple[str, ...] | None = ()
    layer_decay: float | None = None
    no_decay: tuple[str, ...] | None = ()

    def steps(self, updates: int) -> int:
        """Optimiser steps of the whole training, with `updates` of them in an epoch."""
        if self.iterations is not None:
            return self.iterations
        assert self.epochs is not None  # `read` refuses a recipe without both
        return self.epochs * updates

    @property
    def forward_batch(self) -> int:
        """Images per forward pass."""
        return self.batch_size // self.accumulate

    def check_share(self, processes: int) -> None:
        """Refuse a number of processes that cannot share every forward pass equally.

        Raises:
            UserError: what would be possible.
        """
        images = self.forward_batch
        if images % processes:
            raise UserError(
                f"{processes} processes cannot share {images} images per forward pass equally",
                "use other infra.devices, or a multiple of it as recipe.batch_size / recipe.accumulate",
            )
        share = images // processes
        if (self.mixup or self.cutmix) and share % 2:
            raise UserError(
                f"mixup and cutmix mix images in pairs, and {share} for each of {processes} processes is odd",
                "use a larger recipe.batch_size, fewer infra.devices, or recipe.mixup=0 recipe.cutmix=0",
            )


def read(config: Mapping[str, Any]) -> Recipe:
    """Read and check a recipe.

    Raises:
        UserError: an unknown or missing setting, or a value that cannot be.
    """
    recipe = read_settings(Recipe, "recipe", config)
    if (recipe.epochs is None) == (recipe.iterations is None):
        raise UserError(
            f"recipe.epochs={recipe.epochs} with recipe.iterations={recipe.iterations}: "
            "one of them is the length of the training",
            "set the other one to null, or leave recipe.iterations out",
        )
    for name in ("epochs", "iterations", "batch_size", "accumulate"):
        if (count := getattr(recipe, name)) is not None and count < 1:
            raise UserError(f"recipe.{name}={getattr(recipe, name)}", "use 1 or more")
    if recipe.frozen_stages < 0:
        raise UserError(f"recipe.frozen_stages={recipe.frozen_stages} is negative", "use 0 or more")
    rates = ("weight_decay", "warmup_learning_rate", "min_learning_rate")
    for name in (*rates, "warmup_epochs", "mixup", "cutmix"):
        if getattr(recipe, name) < 0:
            raise UserError(f"recipe.{name}={getattr(recipe, name)} is negative", "use 0 or more")
    if recipe.warmup_iterations is not None:
        if recipe.warmup_iterations < 0:
            raise UserError(
                f"recipe.warmup_iterations={recipe.warmup_iterations} is negative", "use 0 or more"
            )
        if recipe.warmup_epochs:
            raise UserError(
                f"recipe.warmup_epochs={recipe.warmup_epochs:g} with "
                f"recipe.warmup_iterations={recipe.warmup_iterations}: the warm-up has one length",
                "use recipe.warmup_epochs=0 or recipe.warmup_iterations=null",
            )
    if not 0 <= recipe.label_smoothing < 1:
        raise UserError(f"recipe.label_smoothing={recipe.label_smoothing}", "use 0 or more, and less than 1")
    if recipe.ema_decay is not None and not 0 < recipe.ema_decay < 1:
        raise UserError(f"recipe.ema_decay={recipe.ema_decay}", "use a number between 0 and 1, or null")
    if recipe.layer_decay is not None and not 0 < recipe.layer_decay <= 1:
        raise UserError(f"recipe.layer_decay={recipe.layer_decay}", "use more than 0 and 1 at most, or null")
    if recipe.clip_grad is not None and recipe.clip_grad <= 0:
        raise UserError(f"recipe.clip_grad={recipe.clip_grad}", "use a positive number, or null")
    if recipe.batch_size % recipe.accumulate:
        raise UserError(
            f"recipe.accumulate={recipe.accumulate} does not divide recipe.batch_size={recipe.batch_size}",
            "batch_size is the number of images per optimiser step; accumulate cuts it into equal parts",
        )
    if recipe.precision not in PRECISIONS:
        raise unknown("recipe.precision", str(recipe.precision), PRECISIONS)
    if (recipe.mixup or recipe.cutmix) and recipe.forward_batch % 2:
        raise UserError(
            f"mixup and cutmix mix images in pairs; {recipe.forward_batch} images per forward pass are odd",
            "use an even recipe.batch_size / recipe.accumulate, or recipe.mixup=0 recipe.cutmix=0",
        )
    if not recipe.learning_rate > 0:
        raise UserError(f"recipe.learning_rate={recipe.learning_rate!r}", "use a positive number")
    return recipe
