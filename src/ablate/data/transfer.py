"""Tensors on their way to the device."""

from __future__ import annotations

import torch
from torch import Tensor

from ablate.data.contract import Scale


class Normalisation:
    """Mean and standard deviation of each channel, on the device."""

    def __init__(self, scale: Scale, device: str) -> None:
        self.device = torch.device(device)
        self._mean, self._std = (255 * torch.tensor(part, device=device)[:, None, None] for part in scale)

    def __call__(self, images: Tensor) -> Tensor:
        """(…, C, H, W) uint8 → float32 on the device, normalised."""
        return images.to(self.device, non_blocking=True).float().sub_(self._mean).div_(self._std)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to the device.

    From pinned memory a copy to CUDA joins the stream and the host continues; from pageable memory the host
    would wait until the device has come to it. PyTorch keeps the pinned memory until the copy is done.
    """
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
