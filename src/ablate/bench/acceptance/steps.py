"""The steps in their order, and what each needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from ablate.errors import unknown


@dataclass(frozen=True)
class Step:
    """One part of the acceptance run.

    Attributes:
        name: also that of the module in this package with its `run(setting)`.
        seconds: limit on a card, after which the step is cut off and what it has measured is kept.
        what: one line for the terminal and the page.
        interpreted: whether a CPU runs its Triton kernels in Triton's interpreter.
    """

    name: str
    seconds: int
    what: str
    interpreted: bool = False


STEPS = (
    Step("machine", 20, "versions, card, clocks"),
    Step("selfcheck", 70, "every Triton kernel compiles, launches and agrees with PyTorch", True),
    Step("tests", 100, "the tests that need a card: every form, precision and gradient, the same bits twice"),
    Step("kernels", 80, "each kernel apart, beside what PyTorch has, with the bytes that it must move", True),
    Step("operators", 50, "every operator forward and backward, with its memory, beside its PyTorch form"),
    Step("models", 75, "training steps of Swin-T: eager, channels last, compiled; a profile of each"),
    Step("resume", 50, "training is interrupted within an epoch and resumed: the same bits?"),
    Step("code", 35, "memory checker on one kernel of each kind; machine code of the hottest"),
)
CPU_SECONDS = 300  # limit of a step at toy size


@dataclass(frozen=True)
class Setting:
    """Where and how large a step runs."""

    device: torch.device
    toy: bool
    folder: Path  # of the record; further files of a step go here


def chosen(names: str | None) -> tuple[Step, ...]:
    """'kernels,models' → those steps, in the order of `STEPS`; all where nothing is written.

    Raises:
        UserError: An unknown step; names the nearest one.
    """
    if names is None:
        return STEPS
    known = [step.name for step in STEPS]
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in known:
            raise unknown("acceptance step", name, known)
    return tuple(step for step in STEPS if step.name in wanted)


def limit(step: Step, toy: bool) -> int:
    """Seconds that a step may take."""
    return CPU_SECONDS if toy else step.seconds


def total(steps: Iterable[Step]) -> int:
    """Seconds of all on a card, if each takes its limit."""
    return sum(step.seconds for step in steps)
