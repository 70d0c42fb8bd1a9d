"""Example inputs for every kernel at neighborhoods that together reach every form of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ablate.kernels.geometry import Neighborhood, offsets_per_axis, strided

IMAGES, HEIGHT, WIDTH = 2, 9, 11  # more than one tile of 8 × 8, and none of them whole


class Case(NamedTuple):
    """A neighborhood, the heads, and which optional operands there are."""

    kernel: int
    dilation: int
    border: str
    stride: int
    heads: int
    head_width: int
    multiply: int = 0  # images that have a static factor of their own; 0: no such factor
    add: int = 0
    axial: bool = False  # whether queries have terms for row and column offsets

    def __str__(self) -> str:
        neighborhood = f"kernel {self.kernel}, dilation {self.dilation}, border {self.border}"
        return f"{neighborhood}, stride {self.stride}, {self.heads} heads of {self.head_width}"


CASES: tuple[Case, ...] = (
    Case(7, 1, "zero", 1, 2, 32),  # Swin's heads
    Case(7, 1, "inside", 1, 2, 16),  # neighborhood attention
    Case(7, 1, "mask", 1, 1, 96),  # wider than attention in one pass takes
    Case(7, 1, "zero", 1, 4, 3),  # heads whose width is not a power of two
    Case(7, 1, "zero", 1, 8, 1),  # as many heads as channels
    Case(5, 1, "zero", 1, 2, 16, multiply=1, add=1, axial=True),  # ELSA's sums, SASA's attention
    Case(5, 1, "mask", 1, 1, 32, add=1, axial=True),
    Case(3, 2, "inside", 1, 2, 16, multiply=IMAGES, add=1, axial=True),
    Case(7, 1, "zero", 1, 1, 64, axial=True),  # the widest of attention in one pass
    Case(5, 2, "zero", 1, 2, 16),
    Case(3, 1, "zero", 1, 2, 32),  # Slide's heads
    Case(3, 1, "zero", 1, 1, 96),
    Case(3, 1, "mask", 2, 1, 32, multiply=IMAGES),  # DDF
    Case(3, 2, "reflect", 1, 2, 16, multiply=1, add=IMAGES),
)


class Operands(NamedTuple):
    """Inputs of any kernel at one case, on the CPU."""

    case: Case
    values: Tensor  # (B, H, W, C)
    outputs: Tensor  # (B, H', W', C)
    filters: Tensor  # (B, H', W', G, K²)
    multiply: Tensor | None  # (B or 1, C, offsets)
    add: Tensor | None  # (B or 1, C, offsets)
    bias: Tensor  # (G, offsets)
    axial: Tensor | None  # (B, H', W', G, 2 · offsets per axis)
    mix: Tensor  # (C/G, K², K²)

    @property
    def neighborhood(self) -> Neighborhood:
        """The neighborhood of the case."""
        return Neighborhood(self.case.kernel, self.case.dilation, self.case.border, self.case.stride)


def operands(dtype: torch.dtype) -> Iterator[Operands]:
    """Draw the inputs of every case; the same at every call."""
    generator = torch.Generator("cpu").manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, device="cpu").to(dtype)

    for case in CASES:
        per_axis, channels = offsets_per_axis(case.kernel, case.border), case.heads * case.head_width
        rows, columns = (strided(length, case.stride) for length in (HEIGHT, WIDTH))
        yield Operands(
            case,
            draw(IMAGES, HEIGHT, WIDTH, channels),
            draw(IMAGES, rows, columns, channels),
            draw(IMAGES, rows, columns, case.heads, case.kernel**2),
            draw(case.multiply, channels, per_axis**2) if case.multiply else None,
            draw(case.add, channels, per_axis**2) if case.add else None,
            draw(case.heads, per_axis**2),
            draw(IMAGES, rows, columns, case.heads, 2 * per_axis) if case.axial else None,
            draw(case.head_width, case.kernel**2, case.kernel**2) / case.kernel,
        )
