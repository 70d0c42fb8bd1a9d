"""One run: train, keep the weights that are best on validation, test them once."""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3, dispatch_clip_grad
from torch import Tensor, nn

from ablate import costs, data, hosts
from ablate.data import Loader, Splits
from ablate.errors import UserError
from ablate.ops import kernels
from ablate.store.files import append_json_line, read_json_lines, write_text
from ablate.store.folder import RunFolder
from ablate.training import checkpoint as checkpoints
from ablate.training import memory, optimization
from ablate.training.checkpoint import Checkpoint
from ablate.training.distributed import SOLO, Group
from ablate.training.evaluation import evaluate
from ablate.training.progress import Reporter
from ablate.training.recipe import Recipe
from ablate.training.recipe import read as read_recipe
from ablate.training.seeding import (
    derive,
    deterministic_algorithms,
    generators,
    restore_generators,
    seed_everything,
)


class NonFiniteLossError(ArithmeticError):
    """The loss is no longer a number: the run is stopped as failed."""


def build_model(config: Mapping[str, Any]) -> nn.Module:
    """The host of a configuration with its operator, initial weights drawn from the run's seed.

    Everything outside the operator's slots is drawn first and is the same for every operator.

    Raises:
        UserError: a combination that cannot exist.
    """
    host, arguments = host_arguments(config)
    seed_everything(config["seed"], "weights")
    return hosts.create(host, config["op"], **arguments)


def host_arguments(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A host's name, and what its data set and its own settings say about it."""
    settings = dict(config["host"])
    name = settings.pop("name")
    info = data.info(config["data"])
    channels, height, width = info.image_shape
    size = height if height == width else (height, width)
    return name, {"num_classes": info.num_classes, "in_chans": channels, "img_size": size, **settings}


@dataclass
class UnderWay:
    """Where a run stands within an epoch."""

    updates: int = 0  # optimiser steps done
    loss_sum: float = 0.0
    images: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Hooks:
    """What the loop calls, and what it asks, from outside.

    Attributes:
        epoch: with the figures of a whole epoch, once they are on disk.
        step: after each optimiser step; may end the run.
        stop: whether the run is to end here, after a checkpoint.
    """

    epoch: Callable[[dict[str, Any]], None] = lambda metrics: None
    step: Callable[[], None] = lambda: None
    stop: Callable[[], bool] = lambda: False


class Training:
    """The state of one run while it trains; of several processes that train it, the first one writes."""

    def __init__(
        self,
        config: Mapping[str, Any],
        folder: RunFolder,
        reporter: Reporter,
        hooks: Hooks | None = None,
        group: Group = SOLO,
    ) -> None:
        self.config, self.folder, self.reporter = config, folder, reporter
        self.hooks, self.group = hooks or Hooks(), group
        self.recipe: Recipe = read_recipe(config["recipe"])
        infra = config["infra"]
        self.device = resolve_device(infra["device"], group.local)
        kernels.use(infra["kernels"])
        torch.set_num_threads(infra["threads"] or _share_of_threads(group))
        deterministic_algorithms()
        memory.reset_peak(self.device)
        if not group.first:
            group.told(None)  # once the first process has the data, which it may have to download
        self.splits: Splits = data.create(
            config["data"],
            seed=derive(config["seed"], "data"),
            batch_size=self.recipe.forward_batch,
            augment=self.recipe.augment,
            evaluation_batch_size=max(250, self.recipe.forward_batch),
            device=self.device,
            data_root=Path(str(infra["data_root"])) if infra["data_root"] else None,
            download=infra["download"],
            workers=infra["workers"],
            shard=group.shard,
        )
        if group.first:
            group.told(None)
        self.model = build_model(config)
        self.costs = {
            "parameters": costs.parameters(self.model),
            "macs": costs.macs(self.model, 1, *self.splits.image_shape),
        }
        self.model = group.share(self.model.to(self.device))
        self.network = group.parallel(self.model)
        self.updates = len(self.splits.train) // self.recipe.accumulate  # optimiser steps per epoch
        if not self.updates:
            raise UserError(
                f"recipe.batch_size={self.recipe.batch_size} is more than the training images",
                f"lower it to {self.splits.train.samples} or less",
            )
        self.optimizer = optimization.optimizer(self.model, self.recipe)
        self.schedule = optimization.schedule(self.optimizer, self.recipe, self.updates)
        self.epochs = self.recipe.epochs
        self.ema = ModelEmaV3(self.model, decay=self.recipe.ema_decay) if self.recipe.ema_decay else None
        half = self.recipe.precision == "float16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half)
        self.mix, self.train_loss = optimization.losses(self.recipe, self.splits.num_classes)
        self.epoch = self.step = self.best_epoch = 0
        self.train_seconds = 0.0
        self.best: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.under_way = UnderWay()
        self.period = 60 * infra["checkpoint_minutes"]
        self.saved = time.monotonic()

    def run(self) -> dict[str, Any]:
        """Train from where the folder's checkpoint stands, then test; returns the final figures."""
        if self.group.first:
            self._resume(self._load())
            self.group.told(self.step)
        elif self.group.told(0):
            self._resume(checkpoints.load(self.folder.checkpoint_path)[0])
        title = f"{self.config['op']['name']} in {self.config['host']['name']}, seed {self.config['seed']}"
        self.reporter.started(title, self.epochs * self.updates, self.step)
        try:
            while self.epoch < self.epochs:
                self._train_epoch()
                self._end_epoch()
            return self._test()
        finally:
            self.reporter.finished()

    def _train_epoch(self) -> None:
        """All that is left of the epoch under way."""
        now = self.under_way
        if not now.updates:
            seed_everything(self.config["seed"], "epoch", self.epoch)
        self.model.train()
        self._pause()
        begun, before = time.perf_counter(), now.seconds
        batches = self.splits.train.epoch(self.epoch, first=now.updates * self.recipe.accumulate)
        while now.updates < self.updates:
            self.schedule.step_update(self.step)
            self.optimizer.zero_grad()
            step_loss = 0.0
            for part in range(1, self.recipe.accumulate + 1):
                more = part < self.recipe.accumulate
                with self.group.without_averaging(self.network) if more else nullcontext():
                    step_loss += self._backward(*next(batches))
            step_loss = self.group.total(step_loss)[0] / self.group.world
            now.images += self.recipe.batch_size
            self.step += 1
            if not math.isfinite(step_loss):
                raise NonFiniteLossError(self._non_finite("loss", step_loss))
            self._update()
            now.updates += 1
            now.loss_sum += step_loss
            now.seconds = before + time.perf_counter() - begun
            self.reporter.stepped(step_loss)
            self.hooks.step()
            self._pause()
        self._synchronize()
        now.seconds = before + time.perf_counter() - begun

    def _pause(self) -> None:
        """A checkpoint where one is due; the end of the run where that is asked for, of any process.

        Raises:
            KeyboardInterrupt: asked to stop; the checkpoint is written.
        """
        if self.group.any(self.hooks.stop()):
            self._save()
            raise KeyboardInterrupt
        if time.monotonic() - self.saved >= self.period:
            try:
                self._save()
            except OSError as error:  # the disk may have room again before it is needed
                self.reporter.note(f"no checkpoint at step {self.step}: {error}; training goes on")
                self.saved = time.monotonic()

    def _backward(self, inputs: Tensor, labels: Tensor) -> float:
        target: Tensor = labels
        if self.mix is not None:
            inputs, target = self.mix(inputs, labels)
        with self._autocast():
            loss = self.train_loss(self.network(inputs), target) / self.recipe.accumulate
        self.scaler.scale(loss).backward()
        return loss.item()

    def _update(self) -> None:
        self.scaler.unscale_(self.optimizer)
        if self.recipe.clip_grad is not None:
            dispatch_clip_grad(self.model.parameters(), self.recipe.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.model, step=self.step)

    def _leave(self) -> None:
        """The end of the run where that is asked for, with the checkpoint that there is."""
        if self.hooks.stop():
            raise KeyboardInterrupt

    def _end_epoch(self) -> None:
        """Metrics first, then the checkpoint: a crash between the two repeats the epoch and its line."""
        done, averaged = self.under_way, self.ema.module if self.ema else self.model
        found = self._evaluate(averaged, self.splits.validation, self._pause)
        if not math.isfinite(found["loss"]):
            raise NonFiniteLossError(self._non_finite("validation loss", found["loss"]))
        self.hooks.step()
        self.epoch += 1
        self.train_seconds += done.seconds
        metrics = {
            "epoch": self.epoch,
            "step": self.step,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "train_loss": done.loss_sum / self.updates,
            **{f"validation_{name}": value for name, value in found.items()},
        }
        speed = {
            "seconds": round(done.seconds, 3),
            "images_per_second": round(done.images / done.seconds, 1),
        }
        best = max((line["validation_top1"] for line in self.history), default=-1.0)
        if metrics["validation_top1"] > best:
            self.best, self.best_epoch = copy.deepcopy(averaged.state_dict()), self.epoch
        self.history.append(metrics)
        self.under_way = UnderWay()
        if self.group.first:
            append_json_line(self.folder.speed_path, {"epoch": self.epoch, **speed})
            append_json_line(self.folder.metrics_path, metrics)
        self._save()
        self.reporter.epoch_ended({**metrics, **speed}, self.epochs)
        self.hooks.epoch({**metrics, **speed})

    def _evaluate(self, model: nn.Module, loader: Loader, on_batch: Callable[[], None]) -> dict[str, float]:
        """Figures of a split; several processes, which take turns at its batches, do not pause at one."""
        alone = on_batch if self.group.world == 1 else None
        return evaluate(model, loader, self._autocast(), on_batch=alone, group=self.group)

    def _save(self) -> None:
        if not self.group.first:
            return
        within = self.under_way.updates > 0
        checkpoints.save(
            self.folder.checkpoint_path,
            Checkpoint(
                epoch=self.epoch,
                step=self.step,
                model=self.model.state_dict(),
                optimizer=self.optimizer.state_dict(),
                ema=self.ema.module.state_dict() if self.ema else None,
                scaler=self.scaler.state_dict() if self.scaler.is_enabled() else None,
                best=self.best,
                best_epoch=self.best_epoch,
                train_seconds=self.train_seconds,
                history=self.history,
                under_way={**asdict(self.under_way), "generators": generators(self.device)}
                if within
                else None,
            ),
        )
        self.saved = time.monotonic()

    def _load(self) -> Checkpoint | None:
        """The folder's checkpoint, if there is one; the folder is mended on the way."""
        for part in self.folder.path.glob(".*.part"):  # of a process that was killed while it wrote
            part.unlink(missing_ok=True)
        found, notes = checkpoints.load(self.folder.checkpoint_path)
        lines, broken = read_json_lines(self.folder.metrics_path)
        if broken:
            self.reporter.note(
                f"metrics.jsonl is broken after line {len(lines)}: going on from what is whole"
            )
        for note in notes:
            where = f"going on from step {found.step}" if found else "training starts again"
            self.reporter.note(f"{note}: {where}")
        history = found.history if found else []
        if lines != history or broken:
            write_text(self.folder.metrics_path, "".join(_line(metrics) for metrics in history))
        return found

    def _resume(self, found: Checkpoint | None) -> None:
        if found is not None:
            self.model.load_state_dict(found.model)
            self.optimizer.load_state_dict(found.optimizer)
            if self.ema is not None and found.ema is not None:
                self.ema.module.load_state_dict(found.ema)
            if found.scaler is not None:
                self.scaler.load_state_dict(found.scaler)
            self.epoch, self.step, self.best_epoch = found.epoch, found.step, found.best_epoch
            self.best, self.train_seconds, self.history = found.best, found.train_seconds, found.history
            if found.under_way is not None:
                under_way = dict(found.under_way)
                restore_generators(under_way.pop("generators"), self.device)
                self.under_way = UnderWay(**under_way)

    def _test(self) -> dict[str, Any]:
        """Figures on the test split, looked at once, with the weights that were best on validation."""
        model = self.ema.module if self.ema else self.model
        model.load_state_dict(self.best)
        found = self._evaluate(model, self.splits.test, self._leave)
        if not math.isfinite(found["loss"]):
            raise NonFiniteLossError(self._non_finite("test loss", found["loss"]))
        validation = self.history[self.best_epoch - 1]
        images = self.step * self.recipe.batch_size
        return {
            **{f"test_{name}": value for name, value in found.items()},
            "validation_top1": validation["validation_top1"],
            "validation_loss": validation["validation_loss"],
            "best_epoch": self.best_epoch,
            **self.costs,
            "throughput": round(images / self.train_seconds, 1),
            "peak_memory_bytes": memory.peak(self.device),
            "train_seconds": round(self.train_seconds, 3),
        }

    def _non_finite(self, what: str, loss: float) -> str:
        good = "no epoch was finished"
        if self.history:
            last = self.history[-1]
            good = f"last good epoch {last['epoch']}: validation top-1 {last['validation_top1']:.2f} %"
        return f"{what} is {loss} at step {self.step}; {good}; try a lower learning rate"

    def _autocast(self) -> torch.autocast:
        enabled = self.recipe.precision != "float32"
        return torch.autocast(self.device.type, dtype=getattr(torch, self.recipe.precision), enabled=enabled)

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def resolve_device(name: str, local: int = 0) -> torch.device:
    """`auto` is CUDA where there is one; else a device as PyTorch names it.

    Args:
        name: infra.device.
        local: number of this process among those of the machine that compute a run together, a card each.

    Raises:
        UserError: not a device, or not available here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    way_out = "use auto, cpu, cuda or cuda:1; `ablate doctor` says what is here"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"infra.device={name} is not a device", way_out) from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"infra.device={name}: runs are computed on cpu or cuda", way_out)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"infra.device={name}: {torch.cuda.device_count()} CUDA devices are here", way_out)
    if name == "cuda" and local:
        return torch.device("cuda", local % torch.cuda.device_count())  # SLURM may show one process one card
    return device


def _share_of_threads(group: Group) -> int:
    """PyTorch's own choice, or less where processes of one machine would take more than its cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(torch.get_num_threads(), max(1, cores // group.neighbors))


def _line(metrics: dict[str, Any]) -> str:
    return json.dumps(metrics, ensure_ascii=False, allow_nan=False) + "\n"
