"""Callbacks: functions of plug-ins that are called while a run trains, and may add figures to its record.

A callback sees the run through a `View`, which gives copies only: with or without it a run has the same bits.
It is chosen by `infra.callbacks=[name]`, which is not part of a run's identity.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ablate.errors import UserError
from ablate.plugins import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Callback", "View", "check", "create", "names", "register"]

EVENTS = ("on_step", "on_epoch", "on_end")

Figures = Mapping[str, Any] | None  # numbers by name, or nothing
Kind = TypeVar("Kind", bound=type)


class View(Protocol):
    """A run that trains, to be read."""

    @property
    def config(self) -> Mapping[str, Any]:
        """Copy of its configuration."""
        ...

    @property
    def signature(self) -> str:
        """Name of its folder."""
        ...

    @property
    def epoch(self) -> int:
        """Epochs that are done."""
        ...

    @property
    def step(self) -> int:
        """Optimizer steps that are done."""
        ...

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """Return copies of the parameters by name."""
        ...

    def gradients(self) -> dict[str, Tensor]:
        """Return copies of the gradients of the last step, clipped if the recipe clips, by parameter."""
        ...

    def network(self) -> nn.Module:
        """Return a copy of the network, in evaluation mode."""
        ...


class Callback:
    """Base of a callback, which defines some of the methods. One object serves one attempt at a run."""

    def on_step(self, run: View) -> Figures:
        """Return figures after an optimizer step; their mean over the steps of an epoch is recorded."""
        return None

    def on_epoch(self, run: View, figures: Mapping[str, float]) -> Figures:
        """Return figures after an epoch, whose own figures are those of metrics.jsonl."""
        return None

    def on_end(self, run: View, result: Mapping[str, float]) -> Figures:
        """Return figures at the end, for result.json, whose own figures are given."""
        return None


_CALLBACKS: Registry[type] = Registry("a callback")


def register(name: str) -> Callable[[Kind], Kind]:
    """Register a callback: a decorator of a class with some of the methods of `Callback`.

    Figures that a method returns, numbers by name, are recorded as `<callback>_<name>`: in callbacks.jsonl
    and W&B for each epoch, in result.json at the end. A callback that raises is switched off, which the run
    notes with file and line.

    Args:
        name: in `infra.callbacks=[<name>]`.

    Raises:
        UserError: the name is taken or breaks the rule for names, or the class has none of the methods, or
            its constructor has arguments without a default.

    Example:
        >>> @register("gradient")
        ... class Gradient(Callback):
        ...     def on_step(self, run):
        ...         return {"norm": sum(g.square().sum() for g in run.gradients().values()).sqrt()}
    """

    def decorate(kind: Kind) -> Kind:
        if not any(callable(getattr(kind, event, None)) for event in EVENTS):
            raise UserError(
                f"{kind.__name__} cannot be the callback {name!r}: it has no method {' or '.join(EVENTS)}",
                "derive it from ablate.callbacks.Callback and define one of them",
            )
        variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        needed = [
            parameter.name
            for parameter in inspect.signature(kind).parameters.values()
            if parameter.default is inspect.Parameter.empty and parameter.kind not in variable
        ]
        if needed:
            raise UserError(
                f"callback {name!r}: {kind.__name__} needs {', '.join(needed)}", "give each a default"
            )
        _CALLBACKS.add(name, kind)
        return kind

    return decorate


def names() -> list[str]:
    """The callbacks."""
    return sorted(_CALLBACKS.all())


def create(name: str) -> Any:
    """Return a callback of a name.

    Raises:
        UserError: unknown name; names the nearest one.
    """
    return _CALLBACKS.find(name)()


def check(chosen: Iterable[str]) -> None:
    """Refuse callbacks that are not registered.

    Raises:
        UserError: unknown name; names the nearest one.
    """
    for name in chosen:
        _CALLBACKS.find(name)
