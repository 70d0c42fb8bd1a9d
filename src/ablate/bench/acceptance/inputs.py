"""Random inputs, drawn on the device: at full size a CPU draws them more slowly than a card computes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from ablate.bench.computation import Computation


def draw(
    shapes: Mapping[str, tuple[int, ...]], device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Normally distributed tensors of deviation ½ that require gradients, the same at every call."""
    generator = torch.Generator(device).manual_seed(0)
    return {
        name: (torch.randn(shape, generator=generator, device=device) / 2).to(dtype).requires_grad_()
        for name, shape in shapes.items()
    }


class OnDevice(Computation):
    """A computation whose direction is drawn on the device, too."""

    @cached_property
    def direction(self) -> Tensor:
        """The gradient of the output."""
        like = self.forward()
        generator = torch.Generator(like.device).manual_seed(1)
        return torch.randn(like.shape, generator=generator, device=like.device).to(like.dtype)
