"""The dilated reparam block merged into one convolution."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.small import build, close, drawn, image

from ablate import ops
from ablate.ops import costs
from ablate.ops.zoo.dilated_reparam import PUBLISHED


@settings(max_examples=15, deadline=None)
@given(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.sampled_from(sorted(PUBLISHED)), st.integers(1, 2))
def test_merged_it_is_the_same_in_evaluation_on_every_map(size: tuple, kernel: int, stride: int) -> None:
    """On maps smaller than the kernel too; the sum of its branches is the same function."""
    operator = drawn(build("dilated_reparam", resolution=None, kernel=kernel, stride=stride)).eval()
    x, branches = image(*size), operator.sum
    images = x.permute(0, 3, 1, 2)
    summed = sum(norm(convolution(images)) for convolution, norm in branches.parts())
    merged = operator.merge()
    close(operator(x), summed.permute(0, 2, 3, 1))
    close(merged(x), operator(x))


@pytest.mark.parametrize("kernel", PUBLISHED)
def test_branches_are_within_the_kernel_and_parameters_those_of_the_formula(kernel: int) -> None:
    branches = PUBLISHED[kernel]
    assert all(dilation * (size - 1) + 1 <= kernel for size, dilation in branches)
    operator = ops.create("dilated_reparam", 16, heads=1, kernel=kernel)
    taps = kernel**2 + sum(size**2 for size, _ in branches)
    assert costs.parameters(operator) == 16 * taps + 2 * 16 * (1 + len(branches))
    assert costs.parameters(operator.merge()) == 16 * (kernel**2 + 1)


def test_merging_keeps_the_dtype_and_changes_nothing() -> None:
    operator = drawn(build("dilated_reparam")).to(torch.bfloat16).eval()
    before = {name: value.clone() for name, value in operator.state_dict().items()}
    merged = operator.merge()
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.bfloat16}
    assert not merged.training
    assert all(torch.equal(value, before[name]) for name, value in operator.state_dict().items())
