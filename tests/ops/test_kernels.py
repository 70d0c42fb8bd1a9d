"""The three sums against sums written as they are defined, position by position."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.definition import along
from torch import Tensor

from ablate.ops import axes, kernels
from ablate.ops.kernels import reference, registration

BORDERS = axes.BORDERS


def slow_sum(
    values: Tensor, filters: Tensor, kernel: int, dilation: int, border: str, stride: int = 1
) -> Tensor:
    _, height, width, channels = values.shape
    batch, rows, columns, heads, _ = filters.shape
    out = values.new_zeros(batch, rows, columns, channels)
    for b, i, j, row, column in itertools.product(
        range(batch), range(rows), range(columns), range(kernel), range(kernel)
    ):
        y, _ = along(i * stride, height, kernel, dilation, border)[row]
        x, _ = along(j * stride, width, kernel, dilation, border)[column]
        if y is None or x is None:
            continue
        weight = filters[b, i, j, :, row * kernel + column].repeat_interleave(channels // heads)
        out[b, i, j] += weight * values[b, y, x]
    return out


@st.composite
def neighborhoods(draw: st.DrawFn) -> tuple[int, int, int, int, int, int, str, int]:
    heads, width_of_head = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    kernel, dilation = draw(st.sampled_from([1, 3, 5])), draw(st.integers(1, 2))
    border = draw(st.sampled_from(BORDERS))
    smallest = kernel * dilation if border == "inside" else 1
    height, width = (draw(st.integers(smallest, smallest + 4)) for _ in range(2))
    stride = draw(st.integers(1, 3))
    return height, width, heads, heads * width_of_head, kernel, dilation, border, stride


@settings(max_examples=25, deadline=None)
@given(neighborhoods(), st.booleans())
def test_sums_equal_their_definition_in_both_forms(shape: tuple, matrix: bool) -> None:
    height, width, heads, channels, kernel, dilation, border, stride = shape
    torch.manual_seed(height * 100 + width)
    neighborhood = (kernel, dilation, border, stride)
    rows, columns = -(-height // stride), -(-width // stride)
    values = torch.randn(2, height, width, channels, dtype=torch.float64)
    other = torch.randn(2, rows, columns, channels, dtype=torch.float64)
    filters = torch.randn(2, rows, columns, heads, kernel**2, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "small_map", lambda *_: matrix)
        patch.setattr(reference, "MATRIX_CHUNK", 1)
        got = reference.aggregate(values, filters, *neighborhood)
        spread = reference.spread(other, filters, height, width, *neighborhood)
        scores = reference.scores(other, values, heads, *neighborhood)
    expected = slow_sum(values, filters, *neighborhood)
    torch.testing.assert_close(got, expected)
    # <y, F v> = <F'y, v> = <scores(y, v), F>: the other two are its transposes
    product = (other * expected).sum()
    torch.testing.assert_close((spread * values).sum(), product)
    torch.testing.assert_close((scores * filters).sum(), product)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_of_every_input(border: str, stride: int) -> None:
    torch.manual_seed(0)
    rows, columns = (5, 4) if stride == 1 else (3, 2)
    values = torch.randn(2, 5, 4, 4, dtype=torch.float64, requires_grad=True)
    outputs = torch.randn(2, rows, columns, 4, dtype=torch.float64, requires_grad=True)
    filters = torch.randn(2, rows, columns, 2, 9, dtype=torch.float64, requires_grad=True)
    neighborhood = (3, 1, border, stride)
    check = torch.autograd.gradcheck
    assert check(lambda v, f: registration.aggregate(v, f, *neighborhood), (values, filters))
    assert check(lambda y, f: registration.spread(y, f, 5, 4, *neighborhood), (outputs, filters))
    assert check(lambda q, k: registration.scores(q, k, 2, *neighborhood), (outputs, values))


def test_registration_is_sound() -> None:
    values, filters = (
        torch.randn(1, 4, 5, 4, requires_grad=True),
        torch.randn(1, 2, 3, 2, 9, requires_grad=True),
    )
    outputs = torch.randn(1, 2, 3, 4, requires_grad=True)
    torch.library.opcheck(registration.aggregate, (values, filters, 3, 1, "zero", 2))
    torch.library.opcheck(registration.spread, (outputs, filters, 4, 5, 3, 1, "mask", 2))
    torch.library.opcheck(registration.scores, (outputs, values, 2, 3, 1, "inside", 2))


@pytest.mark.parametrize("stride", [1, 2])
def test_one_filter_for_all_positions_of_an_image_or_of_all(stride: int) -> None:
    torch.manual_seed(0)
    values = torch.randn(2, 6, 7, 6)
    for images in (1, 2):
        filters = torch.randn(images, 1, 1, 3, 9)
        got = kernels.aggregate(values, filters, kernel=3, dilation=2, stride=stride)
        everywhere = filters.expand(2, *got.shape[1:3], -1, -1)
        torch.testing.assert_close(got, slow_sum(values, everywhere, 3, 2, "zero", stride))


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
