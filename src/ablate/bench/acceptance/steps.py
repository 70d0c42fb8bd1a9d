"""The steps in their order, and what each needs."""

from __future__ import annotations

import math
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
        interpreted: True if a CPU runs its Triton kernels in Triton's interpreter.
        as_trained: True if it computes under the settings of a training run: deterministic algorithms.
    """

    name: str
    seconds: int
    what: str
    interpreted: bool = False
    as_trained: bool = False


STEPS = (
    Step("machine", 20, "versions, card, clocks"),
    Step("selfcheck", 65, "every Triton kernel compiles, launches and agrees with PyTorch", interpreted=True),
    Step("tests", 70, "the tests that need a card: every form, precision and gradient, the same bits twice"),
    Step("kernels", 80, "each kernel apart, beside what PyTorch has and a copy", interpreted=True),
    Step("operators", 45, "every operator forward and backward, beside its PyTorch form", as_trained=True),
    Step("models", 70, "training steps of Swin-T: eager, channels last, compiled; profiles", as_trained=True),
    Step("resume", 60, "interrupt a run within an epoch, resume it, and compare the bits"),
    Step("code", 30, "memory checker on one kernel of each kind; machine code of the hottest"),
)
CPU_SECONDS = 300  # limit of a step at toy size


@dataclass(frozen=True)
class Setting:
    """Device, size and output folder of a step.

    Attributes:
        device: where it computes.
        toy: True at the size that a CPU computes in seconds.
        folder: of the record; further files of a step are written to it.
        factor: of the steps' limits.
        known: (name, shape) of what an attempt that was cut off has measured already.
    """

    device: torch.device
    toy: bool
    folder: Path
    factor: float = 1.0
    known: frozenset[tuple[str, str | None]] = frozenset()

    def knows(self, name: str, shape: str | None = None) -> bool:
        """Return True if a record of this name and shape need not be measured again."""
        return (name, shape) in self.known


def chosen(names: str | None) -> tuple[Step, ...]:
    """Return the named steps in the order of STEPS; all steps if `names` is None.

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


def limit(step: Step, toy: bool, factor: float = 1.0) -> int:
    """Seconds that a step may take."""
    return math.ceil((CPU_SECONDS if toy else step.seconds) * factor)


def total(steps: Iterable[Step], factor: float = 1.0) -> int:
    """Seconds of all on a card, if each takes its limit."""
    return sum(limit(step, False, factor) for step in steps)
