"""A kernel that computes where it agrees with its reference; elsewhere the reference computes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from ablate.kernels import dispatch
from ablate.kernels.selfcheck import verdicts
from ablate.kernels.selfcheck.cases import Operands, operands

TOLERANCE = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 2e-2}  # of the largest entry
LENGTH = 200  # characters of a message that is quoted

Arguments = Callable[[Operands], tuple[Any, ...] | None]


class Checked:
    """A kernel with its reference and the verdict of their comparison.

    Args:
        kernel: Function of a `triton` module; its first argument is a tensor on the device.
        reference: Function of the same arguments in plain PyTorch.
        arguments: Arguments of both from operands; None where the kernel does not take such operands.
    """

    def __init__(
        self, kernel: Callable[..., Any], reference: Callable[..., Any], arguments: Arguments
    ) -> None:
        self.module = kernel.__module__
        self.name = f"{self.module}.{kernel.__name__}".removeprefix("ablate.kernels.")
        self.kernel, self.reference, self.arguments = kernel, reference, arguments
        self.reasons: dict[tuple[torch.device, torch.dtype], str | None] = {}  # not to use it; None: it holds

    def __call__(self, first: Tensor | tuple[Tensor | None, ...], *others: Any) -> Any:
        """Compute, on the device and in the dtype of the first tensor."""
        x = first if isinstance(first, Tensor) else first[0]
        assert isinstance(x, Tensor)
        where = x.device, x.dtype
        if where not in self.reasons:
            reason = self.reasons[where] = verdicts.of(self.module, *where)[self.name]
            if reason is not None:
                warnings.warn(
                    f"Triton's {self.name} with {x.dtype} on {x.device} {reason}: PyTorch computes it, "
                    "more slowly; update Triton and the driver, or set infra.kernels=reference",
                    stacklevel=2,
                )
        if (reason := self.reasons[where]) is None:
            return self.kernel(first, *others)
        dispatch.note_fallback(f"{self.name} with {x.dtype}", reason)
        return self.reference(first, *others)

    def failure(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Compare with the reference in float64, in this process; return what differs, or None.

        Raises:
            torch.OutOfMemoryError: The device has no room for the comparison.
            OSError: The disk has none for what is compiled.
        """
        for found in operands(dtype):
            if (arguments := self.arguments(found)) is None:
                continue
            truth = self.reference(*_map(arguments, Tensor.double))
            try:
                got = _map(_tuple(self.kernel(*_map(arguments, lambda x: x.to(device)))), Tensor.cpu)
            except (OSError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # whatever the compiler, the driver or the card find
                said = " ".join(str(error).split())[:LENGTH]
                return f"fails at {found.case} with {type(error).__name__}: {said}"
            apart = [_error(*pair) for pair in zip(got, _tuple(truth), strict=True)]
            if not all(error <= TOLERANCE[dtype] for error in apart):  # also where one is NaN
                by = ", ".join(f"{error:.1e}" for error in apart)
                rounding = f"{TOLERANCE[dtype]:.0e} is rounding"
                return f"is off at {found.case} by {by} of the largest entry; {rounding}"
        return None


def checked(reference: Callable[..., Any], arguments: Arguments) -> Callable[[Callable[..., Any]], Checked]:
    """Decorate a kernel with its self-check."""
    return lambda kernel: Checked(kernel, reference, arguments)


def _map(values: tuple[Any, ...], change: Callable[[Tensor], Tensor]) -> tuple[Any, ...]:
    """Change the tensors among the values, also those of named tuples."""
    changed: tuple[Any, ...] = tree_map_only(Tensor, change, values)
    return changed


def _tuple(found: Any) -> tuple[Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)


def _error(got: Tensor, truth: Tensor) -> float:
    """The largest, relative to the largest entry; 0 where there is none, as of a gradient of what is None."""
    if got.shape == truth.shape and not truth.numel():
        return 0.0
    return float((got.double() - truth).abs().max() / truth.abs().max())
