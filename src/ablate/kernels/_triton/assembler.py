"""Limits for the assembler of older Tritons, which spills where it chooses the number of registers itself.

The assembler that comes with Triton before 3.8 (CUDA 12.8) keeps some kernels at 64, 80 or 128 registers and
moves 8 to 24 bytes to memory for it. With an explicit limit it finds an allocation without. The rules were
found by compiling every kernel of `ablate.bench.launches` with Triton 3.5.0, 3.6.0 and 3.7.0 at limits of 96,
128, 168 and 255; `tests/kernels/aot` has what each needs with them. Later Tritons need none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

FIRST_WITHOUT = (3, 8)  # Triton's version whose assembler needs no limits


class Limited(Protocol):
    """A call of a kernel, as far as the rules look at it; see `launch.Launch`."""

    @property
    def kernel(self) -> Any:
        """The Triton function."""

    @property
    def arguments(self) -> dict[str, Tensor | int | float | None]:
        """Its tensors and numbers."""

    @property
    def constants(self) -> dict[str, int | str | bool]:
        """Its constexpr parameters."""

    @property
    def warps(self) -> int:
        """Warps of a program."""

    @property
    def registers(self) -> int | None:
        """Registers of a thread, at most; None leaves it to the assembler."""


@dataclass(frozen=True)
class Rule:
    """Limits for some launches of one kernel; the first rule that applies counts."""

    kernel: str
    applies: Callable[[Limited, int], bool]  # to a launch for a compute capability (90 is 9.0)
    registers: int | None = None  # of a thread, at most
    warps: int | None = None


def _has(launch: Limited, *names: str) -> bool:
    return any(launch.arguments.get(name) is not None for name in names)


def _constant(launch: Limited, name: str) -> int:
    return int(launch.constants[name])


def _single(launch: Limited) -> bool:
    """True if the maps are float32."""
    first = next(argument for argument in launch.arguments.values() if isinstance(argument, Tensor))
    return first.dtype == torch.float32


def _narrow(launch: Limited) -> bool:
    """True for many narrow heads in 16 bit without static factors."""
    widths = _constant(launch, "K") > 5 and _constant(launch, "HEAD_WIDTH") <= 16
    return widths and not _single(launch) and not _has(launch, "multiply", "add")


RULES = (
    Rule(
        "aggregate_taps_kernel",
        lambda launch, capability: capability < 90 and _narrow(launch),
        registers=168,
    ),
    Rule("aggregate_taps_kernel", lambda launch, _: _narrow(launch)),  # as it is: a limit makes it spill
    Rule(
        "aggregate_taps_kernel",
        lambda launch, _: _constant(launch, "K") > 3 or _constant(launch, "STRIDE") > 1,
        registers=128,
    ),
    Rule(
        "aggregate_taps_kernel",
        lambda launch, capability: (
            capability >= 100 and _single(launch) and not _has(launch, "multiply", "add")
        ),
        registers=64,
    ),
    Rule(
        "scores_taps_kernel",
        lambda launch, _: (
            _has(launch, "multiply", "add") and not _single(launch) and _constant(launch, "K") > 3
        ),
        registers=96,
    ),
    Rule(
        "aggregate_transpose_taps_kernel",
        lambda launch, _: (
            _single(launch) and _constant(launch, "K") > 5 and _constant(launch, "HEAD_WIDTH") <= 8
        ),
        registers=128,
    ),
    Rule(
        "attention_forward_kernel",
        lambda launch, capability: (
            capability >= 100
            and _has(launch, "axial")
            and not _single(launch)
            and _constant(launch, "CHANNELS") == 32
        ),
        registers=128,
    ),
    Rule(
        "key_gradients_kernel",
        lambda launch, capability: capability >= 100 and _single(launch) and not _has(launch, "axial"),
        warps=8,
    ),
    Rule(
        "key_gradients_kernel",
        lambda launch, capability: (
            capability >= 100
            and _has(launch, "axial")
            and (_constant(launch, "CHANNELS") == 16) == _single(launch)
        ),
        registers=168,
    ),
    Rule("key_gradients_kernel", lambda launch, capability: capability < 90 and _single(launch), warps=4),
)


@cache
def spills_by_itself() -> bool:
    """True if this Triton's assembler needs the limits."""
    import triton

    major, minor = triton.__version__.split(".")[:2]
    return (int(major), int(minor)) < FIRST_WITHOUT


def adjusted(launch: Limited, capability: int) -> tuple[int, int | None]:
    """Warps of a program and the limit of a thread's registers (None: none), with the Triton that is here."""
    return ruled(launch, capability) if spills_by_itself() else (launch.warps, launch.registers)


def ruled(launch: Limited, capability: int) -> tuple[int, int | None]:
    """Warps and register limit with a Triton that needs the rules."""
    for rule in RULES:
        if rule.kernel == launch.kernel.__name__ and rule.applies(launch, capability):
            return rule.warps or launch.warps, rule.registers or launch.registers
    return launch.warps, launch.registers
