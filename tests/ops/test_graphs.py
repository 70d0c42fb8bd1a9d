"""Every entry of the registry under PyTorch's own tools: one graph for every batch, and checkpointing.

The results are those of eager mode, bit for bit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.ops.small import FORMS, build, drawn, image
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ablate import ops

BATCH, OTHER = 4, 3  # images that a graph is traced with, and images that it is used with afterwards
DTYPES = (torch.float32, torch.float64)  # compiled kernels compute, and the reference


def entry(name: str, stride: int = 1, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Heads are 16 channels wide, so that attention is computed in one pass."""
    return drawn(build(name, 32, resolution=(5, 6), stride=stride, index=1)).to(dtype)


def images(batch: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return image(5, 6, dim=32, batch=batch, dtype=dtype)


def step(operator: nn.Module, x: Tensor, call: Callable[[Tensor], Tensor] | None = None) -> dict[str, Tensor]:
    """Output, and the gradient of the input and of every parameter that learns."""
    x = x.clone().requires_grad_()
    y = (call or operator)(x)
    learned = {name: value for name, value in operator.named_parameters() if value.requires_grad}
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=y.dtype)
    gradients = torch.autograd.grad(y, [x, *learned.values()], direction)
    return {"y": y.detach(), **dict(zip(["gradient of x", *learned], gradients, strict=True))}


def assert_same_bits(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


@pytest.mark.parametrize(("name", "stride"), FORMS)
def test_gradient_checkpointing_changes_no_bit(name: str, stride: int) -> None:
    operator, x = entry(name, stride).train(), images(OTHER)
    plain = step(copy.deepcopy(operator), x)
    found = step(operator, x, lambda x: checkpoint(operator, x, use_reentrant=False))
    assert_same_bits(found, plain)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ops.names())
def test_exports_for_every_batch_and_leaves_nothing_behind(name: str, dtype: torch.dtype) -> None:
    """Tensors of a trace must not stay behind in a cache: eager mode runs afterwards."""
    operator = entry(name, dtype=dtype).eval()
    batch = torch.export.Dim("batch")
    exported = torch.export.export(operator, (images(BATCH, dtype),), dynamic_shapes=({0: batch},)).module()
    for number in (OTHER, BATCH):
        assert torch.equal(exported(images(number, dtype)), operator(images(number, dtype))), number
    one = images(1, dtype)  # for which PyTorch may choose another convolution
    torch.testing.assert_close(exported(one), operator(one))


@pytest.mark.parametrize("name", ops.names())
def test_compiles_once_for_every_batch(name: str) -> None:
    """As one graph, forward and backward, in training: batch norms also write their running statistics."""
    operator = entry(name, ops.spec(name).strides[-1]).train()
    eager = copy.deepcopy(operator)
    compiled = torch.compile(operator, fullgraph=True, backend="aot_eager")

    def call(x: Tensor) -> Any:
        torch._dynamo.mark_dynamic(x, 0)
        return compiled(x)

    try:
        for number in (BATCH, OTHER):
            with torch._dynamo.config.patch(error_on_recompile=number == OTHER):
                found = step(operator, images(number), call)
            assert_same_bits(found, step(eager, images(number)))
            assert_same_bits(dict(operator.named_buffers()), dict(eager.named_buffers()))
    finally:
        torch._dynamo.reset()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "stride"), FORMS)
def test_an_empty_batch(name: str, stride: int, dtype: torch.dtype) -> None:
    """Gradients of zeros, and no NaN in a running statistic."""
    for training in (True, False):
        operator = entry(name, stride, dtype).train(training)
        found = step(operator, images(0, dtype))
        assert found.pop("y").shape == (0, -(-5 // stride), -(-6 // stride), 32)
        assert found.pop("gradient of x").shape == (0, 5, 6, 32)
        learned = dict(operator.named_parameters())
        for key, value in found.items():
            assert torch.equal(value, torch.zeros_like(learned[key])), key
        assert all(buffer.isfinite().all() for buffer in operator.buffers())
