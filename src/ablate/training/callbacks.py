"""The callbacks of a run: called by the loop, shielded from it, and their figures recorded."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ablate import callbacks
from ablate.errors import place_of
from ablate.store.files import append_json_line
from ablate.store.folder import RunFolder
from ablate.training.distributed import Group
from ablate.training.progress import Reporter
from ablate.training.seeding import generators, restore_generators


class Training(Protocol):
    """The parts of a training (`loop.Training`) that callbacks need."""

    config: Mapping[str, Any]
    folder: RunFolder
    reporter: Reporter
    group: Group
    device: torch.device
    model: nn.Module
    epoch: int
    step: int
    steps: int


class TrainingView:
    """A `callbacks.View` of a training: copies of what it has at the moment."""

    def __init__(self, training: Training) -> None:
        self._training = training

    @property
    def config(self) -> Mapping[str, Any]:
        """Copy of the configuration."""
        return copy.deepcopy(dict(self._training.config))

    @property
    def signature(self) -> str:
        """Name of the run's folder."""
        return self._training.folder.signature

    @property
    def epoch(self) -> int:
        """Epochs that are done."""
        return self._training.epoch

    @property
    def step(self) -> int:
        """Optimizer steps that are done."""
        return self._training.step

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self._training.steps

    def weights(self) -> dict[str, Tensor]:
        """Return copies of the parameters by name."""
        return {name: value.detach().clone() for name, value in self._training.model.named_parameters()}

    def gradients(self) -> dict[str, Tensor]:
        """Return copies of the gradients of the last step by name of the parameter."""
        named = self._training.model.named_parameters()
        return {name: value.grad.detach().clone() for name, value in named if value.grad is not None}

    def network(self) -> nn.Module:
        """Return a copy of the network, in evaluation mode."""
        return copy.deepcopy(self._training.model).eval()


class Callbacks:
    """The callbacks that `infra.callbacks` names; of several processes, rank 0 has them."""

    def __init__(self, training: Training) -> None:
        chosen = training.config["infra"].get("callbacks") or () if training.group.first else ()
        self.training, self.view = training, TrainingView(training)
        self.active = {name: callbacks.create(name) for name in chosen}
        self.sums: dict[str, tuple[float, int]] = {}  # of the figures of steps, and their number

    def stepped(self) -> None:
        """Call them after an optimizer step."""
        for name, value in self._call("on_step").items():
            if value is not None:
                total, count = self.sums.get(name, (0.0, 0))
                self.sums[name] = (total + value, count + 1)

    def epoch_ended(self, figures: Mapping[str, float]) -> dict[str, float | None]:
        """Call them after an epoch; record and return their figures, those of its steps included."""
        found: dict[str, float | None] = {name: total / count for name, (total, count) in self.sums.items()}
        self.sums = {}
        found |= self._call("on_epoch", figures)
        if found:
            folder = self.training.folder
            append_json_line(folder.callbacks_path, {"epoch": self.training.epoch, **found}, folder.guard)
        return found

    def ended(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Return a result with the figures of callbacks, which replace none of its own."""
        added = self._call("on_end", result)
        return {**result, **{name: value for name, value in added.items() if name not in result}}

    def _call(self, event: str, *arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the figures of every callback; the random generators stay as they are."""
        if not self.active:
            return {}
        device, found = self.training.device, {}
        before = generators(device)
        for name, callback in list(self.active.items()):
            call: Callable[..., callbacks.Figures] | None = getattr(callback, event, None)
            if call is None:
                continue
            try:
                figures = call(self.view, *(dict(each) for each in arguments)) or {}
                found.update({f"{name}_{key}": _number(value) for key, value in figures.items()})
            except Exception as error:  # it is somebody's own
                del self.active[name]
                self.training.reporter.note(
                    f"callback {name!r} is switched off: {type(error).__name__}: {error}{place_of(error)}"
                )
        restore_generators(before, device)
        return found


def _number(value: Any) -> float | None:
    """Return a figure as files have it: None if it is not finite."""
    number = float(value)
    return number if math.isfinite(number) else None
