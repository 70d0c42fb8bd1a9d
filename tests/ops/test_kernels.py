"""The three sums against sums written as they are defined, position by position."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ablate.ops import axes, kernels
from ablate.ops.kernels import reference, registration

BORDERS = axes.BORDERS


def neighbor(position: int, tap: int, length: int, kernel: int, dilation: int, border: str) -> int | None:
    """The neighbour along one axis, from the definition of the border rule."""
    radius = kernel // 2
    if border != "inside":
        found = position + dilation * (tap - radius)
        return found if 0 <= found < length else None
    group = [p for p in range(length) if p % dilation == position % dilation]
    start = min(max(group.index(position) - radius, 0), len(group) - kernel)
    return group[start + tap]


def slow_sum(values: Tensor, filters: Tensor, kernel: int, dilation: int, border: str) -> Tensor:
    batch, height, width, channels = values.shape
    heads = filters.shape[3]
    out = torch.zeros_like(values)
    for b, i, j, row, column in itertools.product(
        range(batch), range(height), range(width), range(kernel), range(kernel)
    ):
        y = neighbor(i, row, height, kernel, dilation, border)
        x = neighbor(j, column, width, kernel, dilation, border)
        if y is None or x is None:
            continue
        weight = filters[b, i, j, :, row * kernel + column].repeat_interleave(channels // heads)
        out[b, i, j] += weight * values[b, y, x]
    return out


@st.composite
def neighborhoods(draw: st.DrawFn) -> tuple[int, int, int, int, int, int, str]:
    heads, width_of_head = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    kernel, dilation = draw(st.sampled_from([1, 3, 5])), draw(st.integers(1, 2))
    border = draw(st.sampled_from(BORDERS))
    smallest = kernel * dilation if border == "inside" else 1
    height, width = (draw(st.integers(smallest, smallest + 4)) for _ in range(2))
    return height, width, heads, heads * width_of_head, kernel, dilation, border


@settings(max_examples=25, deadline=None)
@given(neighborhoods(), st.booleans())
def test_sums_equal_their_definition_in_both_forms(shape: tuple, matrix: bool) -> None:
    height, width, heads, channels, kernel, dilation, border = shape
    torch.manual_seed(height * 100 + width)
    values, other = torch.randn(2, 2, height, width, channels, dtype=torch.float64)
    filters = torch.randn(2, height, width, heads, kernel**2, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "small_map", lambda *_: matrix)
        patch.setattr(reference, "MATRIX_CHUNK", 1)
        got = reference.aggregate(values, filters, kernel, dilation, border)
        spread = reference.spread(other, filters, kernel, dilation, border)
        scores = reference.scores(other, values, heads, kernel, dilation, border)
    expected = slow_sum(values, filters, kernel, dilation, border)
    torch.testing.assert_close(got, expected)
    # <y, F v> = <F'y, v> = <scores(y, v), F>: the other two are its transposes
    product = (other * expected).sum()
    torch.testing.assert_close((spread * values).sum(), product)
    torch.testing.assert_close((scores * filters).sum(), product)


@pytest.mark.parametrize("border", BORDERS)
def test_gradients_of_every_input(border: str) -> None:
    torch.manual_seed(0)
    values = torch.randn(2, 5, 4, 4, dtype=torch.float64, requires_grad=True)
    key = torch.randn(2, 5, 4, 4, dtype=torch.float64, requires_grad=True)
    filters = torch.randn(2, 5, 4, 2, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda v, f: registration.aggregate(v, f, 3, 1, border), (values, filters)
    )
    assert torch.autograd.gradcheck(lambda v, f: registration.spread(v, f, 3, 1, border), (values, filters))
    assert torch.autograd.gradcheck(lambda q, k: registration.scores(q, k, 2, 3, 1, border), (values, key))


def test_registration_is_sound() -> None:
    values, filters = (
        torch.randn(1, 4, 5, 4, requires_grad=True),
        torch.randn(1, 4, 5, 2, 9, requires_grad=True),
    )
    key = torch.randn(1, 4, 5, 4, requires_grad=True)
    torch.library.opcheck(registration.aggregate, (values, filters, 3, 1, "zero"))
    torch.library.opcheck(registration.spread, (values, filters, 3, 1, "mask"))
    torch.library.opcheck(registration.scores, (values, key, 2, 3, 1, "inside"))


def test_static_factors_are_those_of_the_ghost_head() -> None:
    torch.manual_seed(0)
    values, filters = torch.randn(2, 6, 7, 6), torch.randn(2, 6, 7, 3, 9)
    multiply, add = torch.randn(2, 1, 1, 1, 6, 9)
    for border in ("zero", "mask"):
        got = kernels.aggregate(
            values, filters, kernel=3, dilation=2, border=border, multiply=multiply, add=add
        )
        per_channel = filters.repeat_interleave(2, dim=3) * multiply + add
        torch.testing.assert_close(got, slow_sum(values, per_channel, 3, 2, border))
