"""Laws of aggregated attention."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.small import build, close, drawn, image
from torch import nn

from ablate.ops.zoo.aggregated import distances

sizes = st.tuples(st.integers(2, 7), st.integers(2, 7))


@settings(max_examples=10, deadline=None)
@given(sizes, st.integers(1, 2), st.sampled_from([1, 3, 5]))
def test_weights_of_neighbors_and_tokens_sum_to_one(size: tuple, reduction: int, kernel: int) -> None:
    """With values that are alike, and without the filter that lies outside the softmax."""
    operator = drawn(build("aggregated", resolution=size, kernel=kernel, reduction=reduction))
    for filled in (operator.tokens, operator.token_bias, operator.key_value.weight[8:]):
        nn.init.zeros_(filled)
    alike = operator.output(operator.key_value.bias[8:])
    close(operator(image(*size)), alike.expand(2, *size, -1))


@settings(max_examples=10, deadline=None)
@given(sizes, st.integers(0, 99))
def test_without_neighbors_and_distances_it_does_not_see_positions(size: tuple, seed: int) -> None:
    operator = drawn(build("aggregated", resolution=size, kernel=1, reduction=1))
    nn.init.zeros_(operator.distance[2].weight)
    flat = image(*size).flatten(1, 2)
    order = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(seed))
    y = operator(flat.unflatten(1, size)).flatten(1, 2)
    close(operator(flat[:, order].unflatten(1, size)).flatten(1, 2), y[:, order])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.data())
def test_distances_are_those_from_the_middles_of_pooled_cells(length: int, data: st.DataObject) -> None:
    cells = data.draw(st.integers(1, length))
    places = torch.arange(length, dtype=torch.float64)
    middles = nn.functional.adaptive_avg_pool1d(places[None], cells)[0]
    u = (places[:, None] - middles) / max(length - 1, 1) * 8
    table, index = distances(length, cells, length, torch.device("cpu"))
    close(table[index], u.sign() * (u.abs() + 1).log2() / 3)
