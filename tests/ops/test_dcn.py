"""Deformable convolutions without offsets, with whole ones, and at their start."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.small import WIDTHS, build, close, drawn, image
from tests.ops.test_laws import depthwise
from torch import Tensor, nn

sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))
versions = st.sampled_from(["dcnv3", "dcnv4"])


def fixed(operator: nn.Module, offsets: Tensor) -> Tensor:
    """Let an operator have constant offsets (G, K², 2); return its constant weights (G, K²)."""
    heads, taps = operator.heads, operator.taps
    if hasattr(operator, "weights"):
        nn.init.zeros_(operator.offsets.weight)
        operator.offsets.bias.data = offsets.flatten().double()
        nn.init.zeros_(operator.weights.weight)
        return operator.weights.bias.view(heads, taps).softmax(-1)
    nn.init.zeros_(operator.offsets_weights.weight)
    rows = operator.offsets_weights.bias.data[: operator.generated].view(heads, 3 * taps)
    rows[:, : 2 * taps] = offsets.flatten(1)
    return rows[:, 2 * taps :]


@settings(max_examples=15, deadline=None)
@given(sizes, versions, st.sampled_from([1, 3, 5]))
def test_without_offsets_constant_weights_are_a_depthwise_convolution(
    size: tuple[int, int], name: str, kernel: int
) -> None:
    operator = drawn(build(name, resolution=None, kernel=kernel))
    weights = fixed(operator, torch.zeros(operator.heads, operator.taps, 2))
    x = image(*size, dim=WIDTHS.get(name, 8))
    width = x.shape[-1] // operator.heads
    convolved = depthwise(operator.value(x), weights.repeat_interleave(width, 0))
    close(operator(x), operator.output(convolved))


@settings(max_examples=15, deadline=None)
@given(sizes, versions, st.integers(-3, 3), st.integers(-3, 3))
def test_whole_offsets_are_a_shift(size: tuple[int, int], name: str, down: int, right: int) -> None:
    """By rows and columns, zeros from outside the map."""
    operator = drawn(build(name, resolution=None, kernel=1))
    weights = fixed(operator, torch.tensor([down, right]).expand(operator.heads, 1, 2))
    x = image(*size, dim=WIDTHS.get(name, 8))
    values, shifted = operator.value(x), torch.zeros_like(x)
    for y in range(size[0]):
        for z in range(size[1]):
            if 0 <= y + down < size[0] and 0 <= z + right < size[1]:
                shifted[:, y, z] = values[:, y + down, z + right]
    by_channel = weights.repeat_interleave(x.shape[-1] // operator.heads)
    close(operator(x), operator.output(by_channel * shifted))


@pytest.mark.parametrize("name", ["dcnv3", "dcnv4"])
def test_their_first_step(name: str) -> None:
    """DCNv3 begins as a box filter; DCNv4 as zero, whose first gradient reaches the weights alone."""
    torch.manual_seed(0)
    operator, x = build(name).double(), image(6, 5, dim=WIDTHS.get(name, 8)).requires_grad_()
    y = operator(x)
    if name == "dcnv3":
        box = depthwise(operator.value(x), torch.full((8, 9), 1 / 9, dtype=torch.float64))
        return close(y, operator.output(box))
    assert not y.any()
    y.sum().backward()
    assert not x.grad.any()
    moved = {key for key, value in operator.named_parameters() if value.grad.any()}
    assert moved == {"offsets_weights.weight", "offsets_weights.bias"}
    rows = operator.offsets_weights.bias.grad[: operator.generated].view(operator.heads, 3, 9)
    assert not rows[:, :2].any()
    assert rows[:, 2].any()
    assert not operator.offsets_weights.bias.grad[operator.generated :].any()
    return None
