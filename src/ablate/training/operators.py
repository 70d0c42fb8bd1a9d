"""Contract of the operators in a network, checked on real batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ablate import hosts
from ablate.errors import UserError
from ablate.ops import Slot

HELP = "`ablate check-op` shows all that is wrong with an operator"
PATIENCE = 10  # steps after which parameters that no gradient has reached are named


class FirstSteps:
    """Watch the operators of a network: outputs in a step and an evaluation, gradients in the first steps.

    A wrong shape would otherwise be broadcast by the residual connection around an operator, without a word.

    Args:
        model: the network.
        name: of the operator.
        note: is called with the parameters that no gradient has reached in PATIENCE steps, or in an epoch of
            fewer.
        compiled: the network is compiled; hooks would make its graph anew.
    """

    def __init__(self, model: nn.Module, name: str, note: Callable[[str], None], *, compiled: bool) -> None:
        self.model, self.name, self.note, self.compiled = model, name, note, compiled
        self.steps = 0
        self.handles: list[Any] = []
        self.idle = {
            f"{path}.{inner}": parameter
            for path, operator, _ in hosts.operators(model)
            for inner, parameter in operator.named_parameters()
            if parameter.requires_grad
        }

    def begin(self, images: Tensor, precision: torch.autocast) -> None:
        """Watch the outputs of the first batch; of a compiled network those of these images, beside training.

        Args:
            images: (B, C, H, W).
            precision: of the network.
        """
        self._hook(self.model)
        if not self.compiled:
            return
        training = self.model.training
        with torch.random.fork_rng([images.device] if images.is_cuda else []), torch.no_grad(), precision:
            self.model.eval()(images)
        self.unhook()
        self.model.train(training)

    def stepped(self) -> None:
        """Look at the gradients of a step, before they are used."""
        self.unhook()
        self.steps += 1
        self.idle = {name: parameter for name, parameter in self.idle.items() if parameter.grad is None}
        if self.steps == PATIENCE:
            self._say_idle()

    def evaluate(self, model: nn.Module) -> None:
        """Watch the outputs of an evaluation, of the network or of its averaged weights, until `unhook`."""
        if self.steps < PATIENCE:
            self._say_idle()
        if not self.compiled:
            self._hook(model)

    def unhook(self) -> None:
        """Watch no outputs any more."""
        while self.handles:
            self.handles.pop().remove()

    def _hook(self, model: nn.Module) -> None:
        self.handles = [
            operator.register_forward_hook(self._watch(path, slot))
            for path, operator, slot in hosts.operators(model)
        ]

    def _say_idle(self) -> None:
        if not self.idle:
            return
        names = [*self.idle]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        self.note(
            f"operator {self.name!r}: in {self.steps} step{'s' * (self.steps != 1)} no gradient reached "
            f"{', '.join(names[:3])}{more}; if they are not to be learned, make them buffers; {HELP}"
        )

    def _watch(self, path: str, slot: Slot) -> Any:
        def check(operator: nn.Module, inputs: tuple[Tensor, ...], y: Any) -> None:
            (x,) = inputs
            if not isinstance(y, Tensor):
                raise self._error(path, f"returns a {type(y).__name__} instead of a tensor")
            batch, height, width, channels = x.shape
            expected = (batch, -(-height // slot.stride), -(-width // slot.stride), channels)
            if tuple(y.shape) != expected:
                raise self._error(
                    path, f"returns {tuple(y.shape)} for {tuple(x.shape)} instead of {expected}"
                )
            if y.device != x.device:
                raise self._error(path, f"returns a tensor on {y.device} for one on {x.device}")
            if y.dtype != x.dtype and not (
                torch.is_autocast_enabled(x.device.type) and y.is_floating_point()
            ):
                raise self._error(path, f"returns {y.dtype} for an input of {x.dtype}")

        return check

    def _error(self, path: str, words: str) -> UserError:
        return UserError(f"operator {self.name!r} in {path} {words}", f"correct its forward; {HELP}")
