"""Parameters and multiply-accumulates of a module, counted without computing anything."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(module: nn.Module) -> int:
    """Learned parameters, buffers not counted."""
    return sum(parameter.numel() for parameter in module.parameters())


def macs(module: nn.Module, *shape: int) -> int:
    """Multiply-accumulates of one forward pass over an input of `shape`.

    Matrix products, convolutions and the sums over neighborhoods count; norms, activations and
    element-wise products do not, as in the papers' "FLOPs". Runs on the meta device: no data, no
    arithmetic.
    """
    shadow = copy.deepcopy(module).to("meta").eval().requires_grad_(False)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shadow(torch.empty(shape, device="meta"))
    return counter.get_total_flops() // 2
