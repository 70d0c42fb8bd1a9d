"""Proof of the Triton kernels: each is compared with its reference before it is first used.

They are written and tested where there is no GPU. So each is run once per process, device and dtype at
small odd shapes, in all of its forms, and the reference computes in the place of one that fails.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ablate.ops.kernels.geometry import offsets_per_axis, strided

TOLERANCE = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 2e-2}  # of the largest entry
LENGTH = 200  # of a message that is quoted
SIZE = (7, 9)
HEADS, HEAD_WIDTH = 2, 16
NEIGHBORHOODS = ((5, 1, "zero", 1), (3, 1, "zero", 1), (3, 2, "inside", 1), (3, 1, "mask", 2))


class Operands(NamedTuple):
    """What any of the kernels takes at one neighbourhood, on the CPU."""

    values: Tensor  # (B, H, W, C)
    outputs: Tensor  # (B, H', W', C)
    filters: Tensor  # (B, H', W', G, K²)
    multiply: Tensor | None  # (B, C, offsets)
    add: Tensor | None  # (1, C, offsets)
    bias: Tensor  # (G, offsets)
    axial: Tensor | None  # (B, H', W', G, 2 · offsets per axis)
    mix: Tensor  # (C/G, K², K²)
    neighborhood: tuple[int, int, str, int]  # kernel, dilation, border, stride


class Proven:
    """A kernel that computes where it agrees with its reference; elsewhere the reference computes.

    Args:
        kernel: The function of a `cuda` module, its first argument a tensor on the device.
        reference: The function of the same arguments in plain PyTorch.
        arguments: What both are compared with, of operands; None where they do not apply.
    """

    def __init__(
        self,
        kernel: Callable[..., Any],
        reference: Callable[..., Any],
        arguments: Callable[[Operands], tuple[Any, ...] | None],
    ) -> None:
        self.name = f"{kernel.__module__}.{kernel.__name__}".removeprefix("ablate.ops.kernels.")
        self.kernel, self.reference, self.arguments = kernel, reference, arguments
        self.holds: dict[tuple[torch.device, torch.dtype], bool] = {}

    def __call__(self, x: Tensor, *others: Any) -> Any:
        """Compute, on the device and in the dtype of the first tensor."""
        where = x.device, x.dtype
        if where not in self.holds:
            if (reason := self.failure(*where)) is not None:
                warnings.warn(
                    f"Triton's {self.name} with {x.dtype} on {x.device} {reason}: PyTorch computes it, "
                    "more slowly; update Triton and the driver, or set infra.kernels=reference",
                    stacklevel=2,
                )
            self.holds[where] = reason is None
        return (self.kernel if self.holds[where] else self.reference)(x, *others)

    def failure(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """What is wrong with the kernel there; None where it agrees with the reference in float64."""
        for found in operands(dtype):
            if (arguments := self.arguments(found)) is None:
                continue
            truth = self.reference(*_map(arguments, Tensor.double))
            try:
                got = _map(_tuple(self.kernel(*_map(arguments, lambda x: x.to(device)))), Tensor.cpu)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever the compiler, the driver or the card find
                said = " ".join(str(error).split())[:LENGTH]
                return f"fails with {type(error).__name__}: {said}"
            apart = [_error(*pair) for pair in zip(got, _tuple(truth), strict=True)]
            if not all(error <= TOLERANCE[dtype] for error in apart):  # also where one is NaN
                where = "kernel {}, dilation {}, border {}, stride {}".format(*found.neighborhood)
                by = ", ".join(f"{error:.1e}" for error in apart)
                return f"is off at {where} by {by} of the largest entry; {TOLERANCE[dtype]:.0e} is rounding"
        return None


def proven(
    reference: Callable[..., Any], arguments: Callable[[Operands], tuple[Any, ...] | None]
) -> Callable[[Callable[..., Any]], Proven]:
    """Decorate a kernel with its proof."""
    return lambda kernel: Proven(kernel, reference, arguments)


def failures(device: torch.device) -> list[str]:
    """What is wrong with any kernel on a device, in any precision; `ablate doctor` asks."""
    from ablate.ops.kernels.attention import cuda as attention
    from ablate.ops.kernels.mixed import cuda as mixed
    from ablate.ops.kernels.sums import cuda as sums

    return [
        f"{kernel.name} with {dtype} {reason}"
        for kernel in (*sums.KERNELS, *attention.KERNELS, *mixed.KERNELS)
        for dtype in TOLERANCE
        if (reason := kernel.failure(device, dtype)) is not None
    ]


def operands(dtype: torch.dtype) -> Iterator[Operands]:
    """Neighbourhoods that lead to every form: with axial terms, without, with static factors, at a stride."""
    generator = torch.Generator("cpu").manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, device="cpu").to(dtype)

    for neighborhood in NEIGHBORHOODS:
        kernel, _, border, stride = neighborhood
        outputs, offsets = [strided(length, stride) for length in SIZE], offsets_per_axis(kernel, border) ** 2
        channels = HEADS * HEAD_WIDTH
        yield Operands(
            draw(2, *SIZE, channels),
            draw(2, *outputs, channels),
            draw(2, *outputs, HEADS, kernel**2),
            draw(2, channels, offsets) if border == "inside" else None,
            draw(1, channels, offsets) if border == "inside" else None,
            draw(HEADS, offsets),
            draw(2, *outputs, HEADS, 2 * kernel) if kernel == 5 else None,
            draw(HEAD_WIDTH, kernel**2, kernel**2) / kernel,
            neighborhood,
        )


def _map(values: tuple[Any, ...], change: Callable[[Tensor], Tensor]) -> tuple[Any, ...]:
    return tuple(change(value) if isinstance(value, Tensor) else value for value in values)


def _tuple(found: Any) -> tuple[Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)


def _error(got: Tensor, truth: Tensor) -> float:
    """The largest, relative to the largest entry; 0 where there is none, as of a gradient of what is None."""
    if got.shape == truth.shape and not truth.numel():
        return 0.0
    return float((got.double() - truth).abs().max() / truth.abs().max())
