"""Whether two implementations compute the same: no speed is reported where they do not."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

TOLERANCES = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
NEGLIGIBLE = 1e-3  # of the largest gradient: one that vanishes in theory is all rounding


def disagreements(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float | None = None
) -> list[str]:
    """What differs by more than `tolerance` (default: the precision's) of its largest value, in words.

    The yardstick of a gradient is never less than a thousandth of the largest gradient.
    """
    differing = [f"only one has a {name}" for name in sorted(set(found) ^ set(expected))]
    largest = {name: _largest(expected[name]) for name in expected}
    gradients = [value for name, value in largest.items() if name.startswith("gradient")]
    for name in expected:
        if name not in found:
            continue
        allowed = TOLERANCES[expected[name].dtype] if tolerance is None else tolerance
        least = NEGLIGIBLE * max(gradients) if name.startswith("gradient") else 0.0
        scale = max(largest[name], least)
        error = _largest(found[name].double() - expected[name].double())
        if not error <= allowed * scale:  # also where one of them is NaN
            share = error / scale if scale else float("inf")
            differing.append(f"{name} differs by {share:.1e} of its largest value, {allowed:.0e} is allowed")
    return differing


def _largest(x: Tensor) -> float:
    return x.abs().max().item() if x.numel() else 0.0
