"""Memory format and compilation of a network, both outside a run's identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch._inductor
from torch import nn
from torch.nn.utils.memory_format import convert_conv2d_weight_memory_format

from ablate import hosts

# Random numbers come from PyTorch's generators in the order of eager execution, so that drop path draws the
# same masks compiled or not; nothing is chosen by timing, which would differ between two attempts of one run.
INDUCTOR = {"fallback_random": True, "deterministic": True}


def memory_format(setting: str, host: str, device: torch.device) -> torch.memory_format:
    """Memory format of `infra.memory_format`.

    `auto` is channels last on CUDA for hosts whose feature maps are (B, C, H, W). On the CPU it is
    contiguous, whose figures do not change by a bit.
    """
    if setting == "auto":
        channels_last = device.type == "cuda" and hosts.spec(host).channels_first
    else:
        channels_last = setting == "channels_last"
    return torch.channels_last if channels_last else torch.contiguous_format


def lay_out(network: nn.Module, layout: torch.memory_format) -> nn.Module:
    """Convert the weights of 2-D convolutions in place; values, shapes and names stay."""
    if layout == torch.channels_last:
        convert_conv2d_weight_memory_format(network, layout)
    return network


def compiled(network: nn.Module) -> nn.Module:
    """The network with a compiled forward pass, on the same parameters.

    `network` itself stays as it is, so that the keys of its state do not change. What an earlier run of this
    process compiled is discarded: it would count against the limit of recompilations, beyond which PyTorch
    silently returns to eager execution.
    """
    torch.compiler.reset()
    known = torch._inductor.list_options()  # PyTorch 2.9 has no `deterministic`
    options: dict[str, str | int | bool | Callable] = {
        name: value for name, value in INDUCTOR.items() if name in known
    }
    return cast(nn.Module, torch.compile(network, dynamic=False, options=options))
