"""Contract of the operators in a network, checked in the first training step on a real batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ablate import hosts
from ablate.errors import UserError
from ablate.ops import Slot

HELP = "`ablate check-op` shows all that is wrong with an operator"


class FirstStep:
    """Watch the operators of a network until its first step is done.

    A wrong shape would otherwise be broadcast by the residual connection around an operator, without a word.
    """

    def __init__(self, model: nn.Module, name: str) -> None:
        self.name = name
        self.operators = [(path, operator) for path, operator, _ in hosts.operators(model)]
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

    def done(self) -> None:
        """End the watch; refuse parameters of operators that got no gradient.

        Raises:
            UserError: names them.
        """
        for handle in self.handles:
            handle.remove()
        idle = [
            f"{path}.{name}"
            for path, operator in self.operators
            for name, parameter in operator.named_parameters()
            if parameter.requires_grad and parameter.grad is None
        ]
        if idle:
            more = f" and {len(idle) - 3} more" if len(idle) > 3 else ""
            raise UserError(
                f"operator {self.name!r}: no gradient reaches {', '.join(idle[:3])}{more}",
                f"use what is learned, or make it a buffer or requires_grad=False; {HELP}",
            )

    def _error(self, path: str, words: str) -> UserError:
        return UserError(f"operator {self.name!r} in {path} {words}", f"correct its forward; {HELP}")
