"""One run: train, keep the weights that are best on validation, test them once."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3, dispatch_clip_grad
from torch import Tensor, nn

from ablate import data, tasks
from ablate.data import Loader, Splits
from ablate.errors import UserError
from ablate.ops import costs
from ablate.results import examples, predictions
from ablate.store import shapes
from ablate.store.files import append_json_line, read_json_lines, write_json, write_text
from ablate.store.locks import LockedError
from ablate.tasks import pretrained
from ablate.tasks.contract import Figures, named_classes
from ablate.training import checkpoint as checkpoints
from ablate.training import cores, freezing, memory, network, optimization, provenance, utilization
from ablate.training import device as devices
from ablate.training.callbacks import Callbacks
from ablate.training.checkpoint import Checkpoint, UnderWay
from ablate.training.context import RunContext
from ablate.training.operators import FirstSteps
from ablate.training.provenance import Remembering
from ablate.training.readback import Requested, StepReports
from ablate.training.recipe import Recipe
from ablate.training.recipe import read as read_recipe
from ablate.training.seeding import (
    derive,
    generators,
    restore_generators,
    seed_everything,
)


class NonFiniteLossError(ArithmeticError):
    """The loss is no longer a number: the run is stopped as failed."""


class PrunedError(Exception):
    """A search asked the run to end early; its checkpoint is written. Every process of the run raises it."""


def build_model(config: Mapping[str, Any]) -> nn.Module:
    """Build the network of a configuration with its operator; the run's seed draws the initial weights.

    Everything outside the operator's slots is drawn first and is the same for every operator.

    Raises:
        UserError: a combination that cannot exist.
    """
    seed_everything(config["seed"], "weights")
    return tasks.of_run(config).build(config)


class Training:
    """The state of one run while it trains. Where several processes train it, rank 0 writes the files."""

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self.config, self.folder, self.reporter = context.config, context.folder, context.reporter
        self.group = group = context.group
        config = context.config
        self.task = tasks.of_run(config)
        self.recipe: Recipe = read_recipe(config["recipe"])
        infra = config["infra"]
        self.device = devices.resolve_device(infra["device"], group.local_rank)
        torch.set_num_threads(cores.threads(infra["threads"], group))
        devices.prepare(self.device, infra, self.recipe.precision, group)
        memory.reset_peak(self.device)
        if not group.first:
            group.broadcast(None)  # wait until rank 0 has the data, which it may have to download
        self.splits: Splits = data.create(
            config["data"],
            seed=derive(config["seed"], "data"),
            batch_size=self.recipe.forward_batch,
            augment=self.recipe.augment,
            evaluation_batch_size=max(250, self.recipe.forward_batch),
            device=self.device,
            data_root=Path(str(infra["data_root"])) if infra["data_root"] else None,
            download=infra["download"],
            workers=cores.loader_workers(infra["workers"], group),
            shard=group.shard,
            annotation=self.task.annotation,
        )
        if group.first:
            group.broadcast(None)
        self.model = build_model(config)
        freezing.freeze(self.model, self.recipe.freeze)
        macs, reason = costs.macs_or_reason(self.model, 1, *self.splits.image_shape)
        self.costs: dict[str, Any] = {"parameters": costs.parameters(self.model), "macs": macs}
        if reason is not None:
            self.reporter.note(f"multiply-accumulates are not counted: {reason}")
        self.memory_format = network.memory_format(
            infra["memory_format"], config["host"]["name"], self.device
        )
        self.model = network.lay_out(group.share(self.model.to(self.device)), self.memory_format)
        self.network = group.parallel(self.model)
        self.forward = network.compiled(self.network) if infra["compile"] else self.network
        self.updates = len(self.splits.train) // self.recipe.accumulate  # optimiser steps per epoch
        if not self.updates:
            raise UserError(
                f"recipe.batch_size={self.recipe.batch_size} is more than the training images",
                f"lower it to {self.splits.train.samples} or less",
            )
        self._build_optimizer(fused=optimization.fused(self.recipe, self.device))
        self.steps = self.recipe.steps(self.updates)
        self.epochs = math.ceil(self.steps / self.updates)
        self.ema = ModelEmaV3(self.model, decay=self.recipe.ema_decay) if self.recipe.ema_decay else None
        half = self.recipe.precision == "float16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half)
        self.objective = self.task.objective(config, self.recipe, self.splits)
        self.epoch = self.step = self.best_epoch = 0
        self.train_seconds = 0.0
        self.best: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.under_way = UnderWay()
        self.waiting_seconds = 0.0
        self.reports = StepReports(group)
        self.requested = Requested()
        self.period = 60 * infra["checkpoint_minutes"]
        self.saved = time.monotonic()
        self.watched: FirstSteps | None = FirstSteps(
            self.model, config["op"]["name"], self.reporter.note, compiled=infra["compile"]
        )
        self.callbacks = Callbacks(self)

    def _build_optimizer(self, fused: bool) -> None:
        self.fused = fused
        self.optimizer = optimization.optimizer(self.model, self.recipe, in_one_kernel=fused)
        self.schedule = optimization.schedule(self.optimizer, self.recipe, self.updates)

    def run(self) -> dict[str, Any]:
        """Train from the folder's checkpoint on, then test; return the final figures."""
        if self.group.first:
            self._resume(self._load())
            self.group.broadcast(self.step)
        elif self.group.broadcast(0):
            self._resume(checkpoints.load(self.folder.checkpoint_path)[0])
        else:
            self._resume(None)
        title = f"{self.config['op']['name']} in {self.config['host']['name']}, seed {self.config['seed']}"
        self.reporter.started(title, self.steps, self.step)
        try:
            if self.watched is not None:
                images = torch.zeros((2, *self.splits.image_shape), device=self.device)
                self.watched.begin(images.contiguous(memory_format=self.memory_format), self._autocast())
            while self.epoch < self.epochs:
                self._train_epoch()
                self._end_epoch()
            return self._test()
        finally:
            self.reporter.finished()

    def _train_epoch(self) -> None:
        """Train what is left of the current epoch."""
        now = self.under_way
        if not now.updates:
            seed_everything(self.config["seed"], "epoch", self.epoch)
        self.model.train()
        freezing.keep_statistics(self.model, self.recipe.freeze)
        self._pause()
        begun, before = time.perf_counter(), now.seconds
        batches = self.splits.train.epoch(self.epoch, first=now.updates * self.recipe.accumulate)
        while now.updates < self._epoch_updates():
            try:
                loss = self._train_step(batches)
            except Exception:
                self._settle()  # a loss that is not finite explains what failed in the step after it
                raise
            self.reports.push(self.step, loss, self._requested())
            self._settle(keep=1)
            self.callbacks.stepped()
            now.seconds = before + time.perf_counter() - begun
            self.context.on_step()
            self._pause()
        self._settle()
        self._pause()
        self._synchronize()
        now.seconds = before + time.perf_counter() - begun

    def _epoch_updates(self) -> int:
        """Return the optimizer steps of the current epoch: the last one ends with the training."""
        return min(self.updates, self.steps - self.epoch * self.updates)

    def _train_step(self, batches: Iterator[Any]) -> Tensor:
        """Take one optimizer step. Its loss (float64) stays on the device."""
        now = self.under_way
        self.schedule.step_update(self.step)
        self.optimizer.zero_grad()
        step_loss = torch.zeros((), dtype=torch.float64, device=self.device)
        for part in range(1, self.recipe.accumulate + 1):
            more = part < self.recipe.accumulate
            waiting = time.perf_counter()
            batch = next(batches)
            now.waiting_seconds += time.perf_counter() - waiting
            with self.group.without_averaging(self.network) if more else nullcontext():
                step_loss += self._backward(batch)
        if self.watched is not None:
            self.watched.stepped()
        now.images += self.recipe.batch_size
        self.step += 1
        self._update()
        now.updates += 1
        return step_loss

    def _settle(self, keep: int = 0) -> None:
        """Read the losses and requests of all steps but the latest `keep`.

        Nothing may be saved, evaluated or stopped before every loss is read: the weights of a step whose loss
        is not finite must not reach a checkpoint.

        Raises:
            NonFiniteLossError: a loss is not finite; names its step.
        """
        for report in self.reports.settle(keep):
            if not math.isfinite(report.loss):
                raise NonFiniteLossError(self._non_finite("loss", report.loss, report.step))
            self.under_way.loss_sum += report.loss
            self.requested |= report.requested
            self.reporter.stepped(report.loss)

    def _pause(self) -> None:
        """Write a checkpoint if one is due; end the run if any process received a request to end it.

        Several processes act on the reduced report of a step, so that they act after the same step.

        Raises:
            KeyboardInterrupt: a stop was requested; the checkpoint is written.
            PrunedError: a search asked to end the run; the checkpoint is written.
        """
        if self.group.world_size == 1:
            self.requested = self._requested()
        now, self.requested = self.requested, Requested()
        if any(now):
            self._settle()
            self.requested = self.requested._replace(
                checkpoint=False
            )  # again, while this one was in progress
        if now.stop:
            self._save()
            raise KeyboardInterrupt
        if now.prune:
            self._save()
            raise PrunedError
        if now.checkpoint:
            try:
                self._save()
            except (OSError, LockedError) as error:  # the disk may have room again before it is needed
                self.reporter.note(f"no checkpoint at step {self.step}: {error}; training continues")
                self.saved = time.monotonic()

    def _requested(self) -> Requested:
        """Return what is requested of this process; checkpoints and pruning are the first one's affair."""
        if not self.group.first:
            return Requested(self.context.stop())
        due = time.monotonic() - self.saved >= self.period
        return Requested(self.context.stop(), due, self.context.prune())

    def _backward(self, batch: Any) -> Tensor:
        with self._autocast():
            loss = self.objective(self.forward, batch, self.memory_format) / self.recipe.accumulate
        self.scaler.scale(loss).backward()
        return loss.detach()

    def _update(self) -> None:
        self.scaler.unscale_(self.optimizer)
        if self.recipe.clip_grad is not None:
            dispatch_clip_grad(self.model.parameters(), self.recipe.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.model, step=self.step)

    def _leave(self) -> None:
        """End the run if a stop was requested; the last checkpoint is the one to resume from."""
        if self.context.stop():
            raise KeyboardInterrupt

    def _end_epoch(self) -> None:
        """Metrics first, then the checkpoint: a crash between the two repeats the epoch and its line."""
        done, averaged = self.under_way, self.ema.module if self.ema else self.model
        if self.watched is not None:
            self.watched.evaluate(averaged)
        found = self._evaluate(averaged, self.splits.validation, self._pause).metrics
        if self.watched is not None:
            self.watched.unhook()
            self.watched = None
        self._refuse_non_finite("validation", found)
        self.context.on_step()
        self.epoch += 1
        self.train_seconds += done.seconds
        self.waiting_seconds += done.waiting_seconds
        metrics = {
            "epoch": self.epoch,
            "step": self.step,
            "learning_rate": optimization.learning_rate(self.optimizer),
            "train_loss": done.loss_sum / done.updates,
            **{f"validation_{name}": value for name, value in found.items()},
        }
        images_per_second = done.images / done.seconds
        speed = {
            "seconds": round(done.seconds, 3),
            "images_per_second": round(images_per_second, 1),
            **self._usage(images_per_second, done.waiting_seconds / done.seconds),
        }
        selecting, column = self.task.metrics.selecting, self.task.metrics.validation_column
        if all(selecting.better(metrics[column], line[column]) for line in self.history):
            self.best, self.best_epoch = copy.deepcopy(averaged.state_dict()), self.epoch
        self.history.append(metrics)
        self.under_way = UnderWay()
        if self.group.first:
            append_json_line(self.folder.speed_path, {"epoch": self.epoch, **speed}, self.folder.guard)
            append_json_line(self.folder.metrics_path, metrics, self.folder.guard)
        self._save()
        self.reporter.epoch_ended({**metrics, **speed}, self.epochs)
        self.context.on_epoch({**metrics, **speed, **self.callbacks.epoch_ended(metrics)})

    def _evaluate(self, model: nn.Module, loader: Loader, on_batch: Callable[[], None]) -> Figures:
        """Evaluate a split. Several processes share its batches and therefore do not pause between them."""
        alone = on_batch if self.group.world_size == 1 else None
        return self.task.evaluate(model, loader, self._autocast(), alone, self.group)

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
                waiting_seconds=self.waiting_seconds,
                history=self.history,
                under_way={**asdict(self.under_way), "generators": generators(self.device)}
                if within
                else None,
            ),
            self.folder.guard,
        )
        self.saved = time.monotonic()

    def _load(self) -> Checkpoint | None:
        """Return the folder's checkpoint, if there is one, after a repair of the folder's files."""
        folder, guard = self.folder, self.folder.guard
        with guard():
            for part in folder.path.glob(".*.part"):  # of a process that was killed while it wrote
                part.unlink(missing_ok=True)
        found, damaged = checkpoints.load(folder.checkpoint_path, self.model.state_dict())
        checkpoints.set_aside(damaged, guard)
        lines, broken = read_json_lines(folder.metrics_path, shapes.metrics_line)
        if broken:
            self.reporter.note(
                f"metrics.jsonl is broken after line {len(lines)}: resuming from what is whole"
            )
        for path, reason in damaged.items():
            where = f"resuming from step {found.step}" if found else "training starts again"
            self.reporter.note(f"{path.name} cannot be used ({reason}): {where}")
        speed, unreadable = read_json_lines(folder.speed_path, shapes.line)
        if unreadable:  # else the next line would continue half a line
            write_text(folder.speed_path, "".join(_line(line) for line in speed), guard)
        history = found.history if found else []
        if lines != history or broken:
            write_text(folder.metrics_path, "".join(_line(metrics) for metrics in history), guard)
        return found

    def _resume(self, found: Checkpoint | None) -> None:
        if found is None:
            self._record_beginning(self.task.begin(self.model, self.config))
            if self.ema is not None:
                self.ema.module.load_state_dict(self.model.state_dict())
        else:
            self.model.load_state_dict(found.model)
            if (fused := bool(found.optimizer["param_groups"][0].get("fused"))) != self.fused:
                self._build_optimizer(fused)  # as in the attempt before, for the same bits
            self.optimizer.load_state_dict(found.optimizer)
            if self.ema is not None and found.ema is not None:
                self.ema.module.load_state_dict(found.ema)
            if found.scaler is not None:
                self.scaler.load_state_dict(found.scaler)
            self.epoch, self.step, self.best_epoch = found.epoch, found.step, found.best_epoch
            self.best, self.train_seconds, self.history = found.best, found.train_seconds, found.history
            self.waiting_seconds = found.waiting_seconds
            if found.under_way is not None:
                under_way = dict(found.under_way)
                restore_generators(under_way.pop("generators"), self.device)
                self.under_way = UnderWay(**under_way)

    def _record_beginning(self, record: dict[str, Any] | None) -> None:
        if record is not None and self.group.first:
            self.reporter.note(pretrained.described(record))
            described = {**(self.folder.environment() or {}), shapes.BEGINNING: record}
            write_json(self.folder.environment_path, described, self.folder.guard)

    def _test(self) -> dict[str, Any]:
        """Evaluate the test split, once, with the weights that were best on validation."""
        model = self.ema.module if self.ema else self.model
        model.load_state_dict(self.best)
        test = Remembering(self.splits.test)
        found, by_class, answers = self._evaluate(model, test, self._leave)
        self._refuse_non_finite("test", found)
        names = data.info(self.config["data"]).names(self.task.annotation)
        if answers is not None:
            kept = predictions.Kept(answers(), list(names))
            if self.group.first:
                predictions.write(self.folder.predictions_path, kept, self.folder.guard)
        if by_class and self.group.first:
            write_json(self.folder.classes_path, named_classes(by_class, names), self.folder.guard)
            drawn = provenance.predictions(self.task, model, test.batch, names)
            examples.write(self.folder.examples_path, drawn, self.folder.guard)
        validation = self.history[self.best_epoch - 1]
        images_per_second = self.step * self.recipe.batch_size / self.train_seconds
        result = {
            **{f"test_{name}": value for name, value in found.items()},
            **{name: validation[name] for name in self.task.metrics.validation_columns},
            "best_epoch": self.best_epoch,
            **self.costs,
            "throughput": round(images_per_second, 1),
            "train_seconds": round(self.train_seconds, 3),
            **self._usage(images_per_second, self.waiting_seconds / self.train_seconds),
        }
        return self.callbacks.ended(result)

    def _usage(self, images_per_second: float, waiting: float) -> dict[str, Any]:
        """Return the figures that accompany images per second; see `utilization.figures`."""
        figures = utilization.figures(
            self.device, self.recipe.precision, self.costs["macs"], images_per_second / self.group.world_size
        )
        return {"data_wait": round(waiting, 4), "peak_memory_bytes": memory.peak(self.device), **figures}

    def modules(self) -> set[str]:
        """Return the names of the modules in which the parts of this run are defined."""
        return provenance.modules(self.config, self.model, self.task, self.splits.train, self)

    @property
    def numerics(self) -> dict[str, Any]:
        """Settings that change rounding, for environment.json."""
        channels_last = self.memory_format == torch.channels_last
        return {
            "kernels": self.config["infra"]["kernels"],
            "compile": self.config["infra"]["compile"],
            "memory_format": "channels_last" if channels_last else "contiguous",
            "fused_optimizer": self.fused,
            "tf32": self.config["infra"]["tf32"],
        }

    def _refuse_non_finite(self, split: str, found: Mapping[str, float]) -> None:
        """Refuse figures of an evaluation that are no numbers.

        Raises:
            NonFiniteLossError: names the first.
        """
        for name, value in found.items():
            if not math.isfinite(value):
                raise NonFiniteLossError(self._non_finite(f"{split} {name}", value, self.step))

    def _non_finite(self, what: str, loss: float, step: int) -> str:
        good = "no epoch was finished"
        if self.history:
            last = self.history[-1]
            figure = self.task.metrics.selecting.text(last[self.task.metrics.validation_column])
            good = f"last good epoch {last['epoch']}: validation {figure}"
        return f"{what} is {loss} at step {step}; {good}; try a lower learning rate"

    def _autocast(self) -> torch.autocast:
        enabled = self.recipe.precision != "float32"
        return torch.autocast(self.device.type, dtype=getattr(torch, self.recipe.precision), enabled=enabled)

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _line(metrics: dict[str, Any]) -> str:
    return json.dumps(metrics, ensure_ascii=False, allow_nan=False) + "\n"
