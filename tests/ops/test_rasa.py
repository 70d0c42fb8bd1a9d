"""Laws of recursive atrous self-attention."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.small import build, close, drawn, image
from torch import nn

from ablate import ops
from ablate.ops import costs

sizes = st.tuples(st.integers(1, 7), st.integers(1, 7))


@settings(max_examples=15, deadline=None)
@given(sizes, st.integers(1, 3), st.integers(0, 99))
def test_without_neighborhoods_it_does_not_see_positions(size: tuple, depth: int, seed: int) -> None:
    operator = drawn(build("rasa", resolution=size, kernel=1, reduction=1, depth=depth))
    flat = image(*size).flatten(1, 2)
    order = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(seed))
    y = operator(flat.unflatten(1, size)).flatten(1, 2)
    close(operator(flat[:, order].unflatten(1, size)).flatten(1, 2), y[:, order])


@settings(max_examples=10, deadline=None)
@given(sizes, st.integers(1, 2))
def test_queries_of_zero_see_the_mean(size: tuple[int, int], reduction: int) -> None:
    reduction = min(reduction, *size)
    operator = drawn(build("rasa", resolution=size, reduction=reduction, depth=1))
    nn.init.zeros_(operator.query.weight)
    x = image(*size)
    values = operator.key_value(operator.sources(x)).chunk(2, -1)[1]
    close(operator(x), operator.output(values.mean((1, 2), keepdim=True)).expand_as(x))


@pytest.mark.parametrize(("side", "reduction"), [(56, 8), (28, 4), (14, 2), (7, 1), (5, 1)])
def test_the_published_reductions_keep_seven_keys_a_side(side: int, reduction: int) -> None:
    operator = ops.create("rasa", 32, heads=2, resolution=(side, side))
    assert operator.reduction == reduction
    squares = 4 * 32**2 + 10 * 32
    assert costs.parameters(operator) == squares + (reduction**2 * 32**2 + 3 * 32 if reduction > 1 else 0)


def test_deterministic_algorithms_give_the_same_sum() -> None:
    operator, x = drawn(build("rasa")), image(5, 7)
    expected = operator(x)
    torch.use_deterministic_algorithms(True)
    try:
        close(operator(x), expected)
    finally:
        torch.use_deterministic_algorithms(False)
