"""An operator with the slot that it is checked in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ablate import ops


@dataclass(frozen=True)
class Subject:
    """An operator with its settings, in a slot.

    Attributes:
        name: of a registry entry.
        settings: those that differ from its defaults, as `ops.create` takes them.
        dim: channels.
        heads: of the host.
        resolution: (H, W) of the map.
        stride: of the layer that the operator replaces.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    dim: int = 16
    heads: int = 2
    resolution: tuple[int, int] = (14, 14)
    stride: int = 1

    @property
    def spec(self) -> ops.registry.OperatorSpec:
        """The registry entry."""
        return ops.spec(self.name)

    @property
    def reach(self) -> int:
        """Positions to either side that the operator's sliding kernels, one after the other, reach."""
        chosen = {**self.spec.defaults, **self.settings}
        return sum(int(chosen[setting]) // 2 for setting in self.spec.sliding)

    def build(self, seed: int = 0) -> nn.Module:
        """Build the operator, in float32, with weights drawn from a seed."""
        torch.manual_seed(seed)
        return ops.create(
            self.name,
            self.dim,
            heads=self.heads,
            resolution=self.resolution,
            stride=self.stride,
            index=1,  # windows of odd blocks are shifted
            settings=self.settings,
        )

    def drawn(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        """Build the operator with parameters and statistics far from their first values."""
        return in_dtype(drawn(self.build()), dtype)

    def image(self, batch: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return (batch, H, W, dim), normally distributed, the same at every call."""
        generator = torch.Generator().manual_seed(2)
        return torch.randn(batch, *self.resolution, self.dim, dtype=dtype, generator=generator)

    def shape(self, batch: int) -> tuple[int, ...]:
        """Return the shape that the output must have."""
        return (batch, *(-(-side // self.stride) for side in self.resolution), self.dim)


def drawn(operator: nn.Module) -> nn.Module:
    """Move an operator to float64, and draw all parameters and running statistics."""
    torch.manual_seed(1)
    operator = in_dtype(operator, torch.float64)
    for parameter in operator.parameters():
        nn.init.normal_(parameter, std=0.4)
    for name, buffer in operator.named_buffers():
        if name.endswith("running_mean"):
            nn.init.normal_(buffer)
        if name.endswith("running_var"):
            nn.init.uniform_(buffer, 0.5, 2)
    return operator


def in_dtype(operator: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Convert real numbers to a dtype; complex ones and integers stay."""
    return operator._apply(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)


def learned(operator: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that learn, by name."""
    return {name: value for name, value in operator.named_parameters() if value.requires_grad}


def step(
    operator: nn.Module, x: Tensor, call: Callable[[Tensor], Tensor] | None = None, *, seed: int = 7
) -> dict[str, Tensor]:
    """Return the output, and the gradients of the input and of every parameter that learns.

    They are those of one random sum of the output; zeros for a parameter that has no part in it. The random
    generator is set to a seed before, for dropout.
    """
    torch.manual_seed(seed)
    x = x.clone().requires_grad_()
    y = (call or operator)(x)
    named = learned(operator)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = torch.autograd.grad(
        y, [x, *named.values()], direction.to(y.dtype), allow_unused=True, materialize_grads=True
    )
    return {"y": y.detach(), **dict(zip(["gradient of x", *named], found, strict=True))}
