"""Which implementation computes: the fast one of a tensor's device, or the reference, and why."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from typing import TYPE_CHECKING, Any

from ablate.errors import unknown

if TYPE_CHECKING:
    import torch

CHOICES = ("auto", "reference")
FAST = {"cpu": "ablate.ops.kernels.cpu", "cuda": "ablate.ops.kernels.cuda.sums"}
NEEDS = {"cpu": "numba", "cuda": "triton"}
_chosen = "auto"


def use(choice: str) -> None:
    """`auto`: the fast implementation of each device; `reference`: plain PyTorch everywhere.

    Raises:
        UserError: another word.
    """
    global _chosen
    if choice not in CHOICES:
        raise unknown("infra.kernels", choice, CHOICES)
    _chosen = choice


def hindrance(device: str) -> str | None:
    """Why a device has no fast implementation here; None if it has one."""
    if device not in FAST:
        return f"ablate has no kernels for {device}: PyTorch computes all"
    if not installed(NEEDS[device]):
        return f"{NEEDS[device].title()} is not installed: PyTorch computes all; reinstall ablate"
    return None


@cache
def installed(package: str) -> bool:
    """Whether a package can be imported, looked up once."""
    return importlib.util.find_spec(package) is not None


def implementation(x: torch.Tensor) -> Any:
    """The module whose functions compute with this tensor."""
    import torch

    from ablate.ops.kernels import reference

    if _chosen == "reference" or x.dtype == torch.float64 or hindrance(x.device.type) is not None:
        return reference
    return importlib.import_module(FAST[x.device.type])
