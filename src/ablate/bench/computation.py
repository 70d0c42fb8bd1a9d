"""Computations that are timed and compared: forward or as a training step, by one implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ablate import kernels
from ablate.kernels.dispatch import recorded_fallbacks

PASSES = ("forward", "training")


@dataclass
class Computation:
    """A function of tensors that learn.

    Attributes:
        call: the output from the tensors, or from what else it knows.
        learned: the tensors that training takes the gradients of, by name.
        implementation: `auto` or `reference`, as in `ablate.kernels.use`.
        fallbacks: kernel → why PyTorch computed it although the implementation is `auto`; as `values` found.
    """

    call: Callable[..., Tensor]
    learned: Mapping[str, Tensor]
    implementation: str = "auto"
    fallbacks: dict[str, str] = field(default_factory=dict)

    def forward(self) -> Tensor:
        """The output, nothing kept for gradients."""
        with chosen(self.implementation), torch.no_grad():
            return self.call()

    def training(self) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """The output and the gradients of a fixed random sum of it."""
        with chosen(self.implementation), torch.enable_grad():
            y = self.call()
            learned = list(self.learned.values())
            gradients = torch.autograd.grad(y, learned, self.direction.to(y.dtype), allow_unused=True)
            return y.detach(), gradients

    def passes(self) -> dict[str, Callable[[], object]]:
        """Both, by the names of `PASSES`."""
        return {"forward": self.forward, "training": self.training}

    def values(self) -> dict[str, Tensor]:
        """The output and every gradient, by name."""
        with recorded_fallbacks() as self.fallbacks:
            y, gradients = self.training()
        named = zip(self.learned, gradients, strict=True)
        return {"output": y} | {f"gradient of {name}": x for name, x in named if x is not None}

    @cached_property
    def direction(self) -> Tensor:
        """The gradient of the output: the same for computations of one shape, drawn at its first use."""
        like = self.forward()
        drawn = torch.randn(like.shape, generator=torch.Generator().manual_seed(1))
        return drawn.to(like.device, like.dtype)


@contextmanager
def chosen(implementation: str) -> Iterator[None]:
    """Kernels by this implementation, and by the usual one afterwards."""
    kernels.use(implementation)
    try:
        yield
    finally:
        kernels.use("auto")


def draw(
    shapes: Mapping[str, tuple[int, ...]], device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Normally distributed tensors of deviation ½ that learn, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: (torch.randn(shape, generator=generator) / 2).to(device, dtype).requires_grad_()
        for name, shape in shapes.items()
    }


def flops(call: Callable[..., Tensor], inputs: Mapping[str, Tensor]) -> dict[str, int]:
    """Count the FLOPs of both passes by the formulas of the kernels; nothing is computed."""
    shadows = {name: torch.empty_like(x, device="meta").requires_grad_() for name, x in inputs.items()}
    with FlopCounterMode(display=False) as counter:
        y = call(*shadows.values())
        forward = counter.get_total_flops()
        torch.autograd.grad(y, list(shadows.values()), torch.empty_like(y))
    return {"forward": forward, "training": counter.get_total_flops()}
