"""Agreement of two implementations: no speed is reported where they disagree."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

TOLERANCES = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
ROUNDINGS = 2  # times the reference's own distance from float64, where a ReLU turns
NEGLIGIBLE = 1e-3  # of the largest gradient: one that vanishes in theory is all rounding


class FellBack(str):
    """A reason not to time a computation: PyTorch computed what a compiled kernel should."""


def fallen(fallbacks: Mapping[str, str]) -> list[str]:
    """Describe the kernels that fell back, one by one."""
    return [FellBack(f"fell back to PyTorch: {kernel}, {reason}") for kernel, reason in fallbacks.items()]


def judged(
    fast: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    exact: Callable[[], Mapping[str, Tensor]],
    tolerance: float,
) -> list[str]:
    """Describe what differs from the reference, and from float64 by more than the reference does.

    A ReLU that rounding turns changes gradients by more than rounding would.
    """
    if not disagreements(fast, reference, tolerance):
        return []
    truth = exact()
    return disagreements(fast, truth, max(tolerance, ROUNDINGS * max(errors(reference, truth).values())))


def disagreements(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float | None = None
) -> list[str]:
    """Describe what differs by more than `tolerance` (default: that of the precision) of its largest value.

    The yardstick of a gradient is never less than a thousandth of the largest gradient.
    """
    differing = [f"only one has a {name}" for name in sorted(set(found) ^ set(expected))]
    for name, share in errors(found, expected).items():
        allowed = TOLERANCES[expected[name].dtype] if tolerance is None else tolerance
        if not share <= allowed:  # also where one of them is NaN
            differing.append(f"{name} differs by {share:.1e} of its largest value, {allowed:.0e} is allowed")
    return differing


def errors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, float]:
    """The largest error of what both have, as a share of the largest value; the yardstick as above."""
    largest = {name: _largest(expected[name]) for name in expected}
    gradients = [value for name, value in largest.items() if name.startswith("gradient")]
    shares = {}
    for name in [name for name in expected if name in found]:
        least = NEGLIGIBLE * max(gradients) if name.startswith("gradient") else 0.0
        scale = max(largest[name], least)
        error = _largest(found[name].double() - expected[name].double())
        shares[name] = error / scale if scale else error and float("inf")
    return shares


def _largest(x: Tensor) -> float:
    return x.abs().max().item() if x.numel() else 0.0
