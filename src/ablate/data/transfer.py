"""Small tensors from the CPU to the device, without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to the device.

    From pinned memory a copy to CUDA joins the stream and the host continues; from pageable memory the host
    would wait until the device has come to it. PyTorch keeps the pinned memory until the copy is done.
    """
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
