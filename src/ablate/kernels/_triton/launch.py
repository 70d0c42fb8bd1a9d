"""Launches: the arguments of a kernel, computed first, then run, or compiled where there is no GPU."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ablate.kernels._triton.assembler import adjusted
from ablate.kernels.geometry import Neighborhood, axis_taps

INDEX_LIMIT = 2**31  # elements of one image that 32-bit offsets reach


@dataclass(frozen=True)
class Launch:
    """One call of a Triton kernel."""

    kernel: Any
    programs: int
    arguments: dict[str, Tensor | int | float | None]  # the first is a tensor on the device
    constants: dict[str, int | str | bool]  # the kernel's constexpr parameters
    warps: int
    stages: int = 3  # iterations of a loop whose operands are loaded ahead, counting the current one
    registers: int | None = None  # of a thread, at most; None leaves it to the assembler

    def options(self, capability: int) -> dict[str, int]:
        """Options of the compiler for a card of this compute capability (90 is 9.0)."""
        warps, registers = adjusted(self, capability)
        limit = {} if registers is None else {"maxnreg": registers}
        return {"num_warps": warps, "num_stages": self.stages, **limit}

    def run(self) -> None:
        """Launch, on the device of the first tensor; an empty output needs no program."""
        tensors = [argument for argument in self.arguments.values() if isinstance(argument, Tensor)]
        for tensor in tensors:
            if tensor.ndim > 2 and tensor[:1].numel() >= INDEX_LIMIT:
                raise ValueError(
                    f"a tensor of shape {tuple(tensor.shape)}: one image has 2³¹ elements or more"
                )
        if self.programs:
            options = self.options(capability_of(tensors[0].device))
            with torch.cuda.device_of(tensors[0]):
                self.kernel[(self.programs,)](**self.arguments, **self.constants, **options)


@cache
def capability_of(device: torch.device) -> int:
    """Compute capability of a card; of a CPU, where Triton's interpreter runs, 0."""
    if device.type != "cuda":
        return 0
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def border_rule(height: int, width: int, neighborhood: Neighborhood) -> str:
    """The rule that decides a sum: `mask` differs from `zero` only in what a norm computes from it.

    Raises:
        ValueError: The map is too small for the border.
    """
    if neighborhood.border in ("zero", "mask"):
        return "zero"
    for length in (height, width):
        axis_taps(length, neighborhood._replace(stride=length))  # the taps of one position: a mere check
    return neighborhood.border
