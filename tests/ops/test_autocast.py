"""Under autocast every entry of the registry computes in one dtype, whatever the layer before it returns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.ops.small import FORMS, build, image
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

PRODUCTS = {"aten::mm": "mm", "aten::addmm": "mm", "aten::bmm": "bmm", "aten::baddbmm": "bmm"}
OTHERS = ("ablate::", "aten::convolution")


class Recorder(TorchDispatchMode):
    """The calls of operators that take the time, each with the dtype of its leading operand."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, torch.dtype]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.name()
        if name in PRODUCTS or name.startswith(OTHERS):
            self.calls.append((PRODUCTS.get(name, name), args[0].dtype))
        return func(*args, **(kwargs or {}))


def entry(name: str, stride: int) -> nn.Module:
    """Heads are 16 channels wide, so that attention is computed in one pass."""
    return build(name, 32, resolution=(5, 6), stride=stride, index=1).train()


def step(operator: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Output, and the gradients of the input and of every parameter as one vector in float32."""
    x = x.clone().requires_grad_()
    y = operator(x)
    learned = [parameter for parameter in operator.parameters() if parameter.requires_grad]
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(3)).to(y.dtype)
    gradients = torch.autograd.grad(y, [x, *learned], direction)
    return y, torch.cat([gradient.flatten().float() for gradient in gradients])


@pytest.mark.parametrize(("name", "stride"), FORMS)
def test_the_dtype_is_that_of_autocast_whatever_the_input(name: str, stride: int) -> None:
    """Statistics of batch norms in closed form are products in float64 in every precision."""
    x = image(5, 6, dim=32, dtype=torch.float32)
    _, exact = step(entry(name, stride), x)
    calls = []
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", torch.bfloat16), Recorder() as recorder:
            y, found = step(entry(name, stride), x.to(dtype))
        assert y.dtype == torch.bfloat16
        assert not [call for call in recorder.calls if call[1] == torch.float32]
        calls.append(recorder.calls)
        assert (found - exact).norm() <= 0.15 * exact.norm()
    assert calls[0] == calls[1]
    assert calls[0]


@pytest.mark.parametrize(("name", "stride"), FORMS)
def test_float64_is_left_as_it_is(name: str, stride: int) -> None:
    """As PyTorch's autocast leaves it in a linear layer."""
    operator, x = entry(name, stride).double(), image(5, 6, dim=32)
    with torch.autocast("cpu", torch.bfloat16):
        y = operator(x)
    assert y.dtype == torch.float64
