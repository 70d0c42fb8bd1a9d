"""Parameters and multiply-accumulates of a module."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(module: nn.Module) -> int:
    """Learned parameters, buffers not counted."""
    return sum(parameter.numel() for parameter in module.parameters())


def macs(module: nn.Module, *shape: int) -> int:
    """Multiply-accumulates of one forward pass over an input of `shape`.

    Matrix products, convolutions and the sums over neighborhoods count; norms, activations and
    element-wise products do not, as in the papers' "FLOPs". Runs on the meta device: no data, no
    arithmetic. A module that reads values (`.item()`, NumPy) cannot run there; it computes one input of zeros
    where it is instead, and draws nothing from the random generators.
    """
    try:
        return _counted(copy.deepcopy(module).to("meta"), torch.empty(shape, device="meta"))
    except Exception:  # of whatever the module does with what has no values
        place = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
        if place.type == "meta":
            raise
        with torch.random.fork_rng([place] if place.type == "cuda" else []):
            return _counted(copy.deepcopy(module), torch.zeros(shape, device=place))


def macs_or_reason(module: nn.Module, *shape: int) -> tuple[int | None, str | None]:
    """Return `macs`, or None and the reason if the module fails on one input of zeros."""
    try:
        return macs(module, *shape), None
    except Exception as error:  # of whatever it does with one image, which a batch may not need
        return None, f"{type(error).__name__}: {error}"


def _counted(module: nn.Module, x: Tensor) -> int:
    module.eval().requires_grad_(False)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(x)
    return counter.get_total_flops() // 2
