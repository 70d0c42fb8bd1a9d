"""Contract of the operators in a network, checked on real batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ablate import hosts
from ablate.errors import UserError
from ablate.ops import Slot

HELP = "`ablate check-op` shows all that is wrong with an operator"


class FirstSteps:
    """Watch the operators of a network: their outputs in the first step, their gradients in the first epoch.

    A wrong shape would otherwise be broadcast by the residual connection around an operator, without a word.
    """

    def __init__(self, model: nn.Module, name: str) -> None:
        self.name = name
        self.idle = {
            f"{path}.{inner}": parameter
            for path, operator, _ in hosts.operators(model)
            for inner, parameter in operator.named_parameters()
            if parameter.requires_grad
        }
        self.handles = [
            operator.register_forward_hook(self._watch(path, slot))
            for path, operator, slot in hosts.operators(model)
        ]

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

    def stepped(self) -> None:
        """Look at the gradients of a step, before they are used."""
        while self.handles:
            self.handles.pop().remove()
        self.idle = {name: parameter for name, parameter in self.idle.items() if parameter.grad is None}

    def note(self) -> str | None:
        """Name the parameters that no gradient has reached so far; None if there are none."""
        if not self.idle:
            return None
        names = [*self.idle]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return (
            f"operator {self.name!r}: in this epoch no gradient reached {', '.join(names[:3])}{more}; "
            f"if they are not to be learned, make them buffers; {HELP}"
        )

    def _error(self, path: str, words: str) -> UserError:
        return UserError(f"operator {self.name!r} in {path} {words}", f"correct its forward; {HELP}")
