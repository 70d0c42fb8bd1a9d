"""Autocast: the dtype that a kernel computes in, and kernels that autocast leaves alone.

The functions of `ablate.kernels` cast their leading operand as autocast casts the operands of a matrix
product, and the other operands follow it. So an operator computes in the autocast dtype whatever the layer
before it returns: float32 after a layer norm, 16 bits after a convolution and its batch norm.
"""

from __future__ import annotations

import torch
from torch import Tensor


def in_autocast(x: Tensor) -> Tensor:
    """Return `x` in the autocast dtype of its device; as it is without autocast, and in float64.

    PyTorch's own matrix products leave float64 as it is, too.
    """
    device = x.device.type
    if x.dtype == torch.float64 or device == "meta":  # which has no autocast
        return x
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


def as_declared(x: Tensor) -> torch.autocast:
    """Turn autocast off on the device of `x`: the body of an operator returns the dtype it has declared."""
    return torch.autocast(x.device.type, enabled=False)
