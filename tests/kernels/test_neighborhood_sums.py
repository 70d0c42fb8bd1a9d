"""The three sums against sums written as they are defined, position by position."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.definition import along
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ablate import kernels
from ablate.kernels import neighborhood_sums as sums
from ablate.kernels.geometry import Neighborhood, offsets_per_axis
from ablate.kernels.neighborhood_sums import reference
from ablate.ops import axes

BORDERS = axes.BORDERS


def slow_sum(  # noqa: PLR0913 (a case is drawn from its parts)
    values: Tensor,
    filters: Tensor,
    multiply: Tensor | None,
    add: Tensor | None,
    kernel: int,
    dilation: int,
    border: str,
    stride: int = 1,
) -> Tensor:
    _, height, width, channels = values.shape
    batch, rows, columns, heads, _ = filters.shape
    axis = offsets_per_axis(kernel, border)
    out = values.new_zeros(batch, rows, columns, channels)
    for b, i, j, row, column in itertools.product(
        range(batch), range(rows), range(columns), range(kernel), range(kernel)
    ):
        y, down = along(i * stride, height, kernel, dilation, border)[row]
        x, across = along(j * stride, width, kernel, dilation, border)[column]
        if y is None or x is None:
            continue
        weight = filters[b, i, j, :, row * kernel + column].repeat_interleave(channels // heads)
        if multiply is not None:
            weight = weight * multiply[b % len(multiply), :, down * axis + across]
        if add is not None:
            weight = weight + add[b % len(add), :, down * axis + across]
        out[b, i, j] += weight * values[b, y, x]
    return out


def slow_bias(  # noqa: PLR0913 (a case is drawn from its parts)
    filters: Tensor,
    bias: Tensor,
    height: int,
    width: int,
    kernel: int,
    dilation: int,
    border: str,
    stride: int,
) -> Tensor:
    """Σ filters · bias over all taps, whether they are real or not."""
    _, rows, columns, _, _ = filters.shape
    axis, total = offsets_per_axis(kernel, border), filters.new_zeros(())
    for i, j, row, column in itertools.product(range(rows), range(columns), range(kernel), range(kernel)):
        _, down = along(i * stride, height, kernel, dilation, border)[row]
        _, across = along(j * stride, width, kernel, dilation, border)[column]
        total += (filters[:, i, j, :, row * kernel + column] * bias[:, down * axis + across]).sum()
    return total


@st.composite
def neighborhoods(draw: st.DrawFn) -> tuple[int, int, int, int, int, int, str, int]:
    heads, width_of_head = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    kernel, dilation = draw(st.sampled_from([1, 3, 5])), draw(st.integers(1, 2))
    border = draw(st.sampled_from(BORDERS))
    smallest = kernel * dilation if border == "inside" else 1
    height, width = (draw(st.integers(smallest, smallest + 4)) for _ in range(2))
    stride = draw(st.integers(1, 3))
    return height, width, heads, heads * width_of_head, kernel, dilation, border, stride


@settings(max_examples=40, deadline=None)
@given(neighborhoods(), st.booleans(), st.sampled_from([(0, 0), (1, 0), (0, 2), (2, 1)]), st.booleans())
def test_sums_equal_their_definition_in_both_forms(
    shape: tuple, matrix: bool, images: tuple[int, int], biased: bool
) -> None:
    height, width, heads, channels, kernel, dilation, border, stride = shape
    torch.manual_seed(height * 100 + width)
    neighborhood = Neighborhood(kernel, dilation, border, stride)
    rows, columns = -(-height // stride), -(-width // stride)
    values = torch.randn(2, height, width, channels, dtype=torch.float64)
    other = torch.randn(2, rows, columns, channels, dtype=torch.float64)
    filters = torch.randn(2, rows, columns, heads, kernel**2, dtype=torch.float64)
    shape = channels, offsets_per_axis(kernel, border) ** 2
    multiply, add = (torch.randn(n, *shape, dtype=torch.float64) if n else None for n in images)
    bias = torch.randn(heads, shape[1], dtype=torch.float64) if biased else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "small_map", lambda *_: matrix)
        patch.setattr(reference, "MATRIX_CHUNK", 1)
        got = reference.aggregate(values, filters, multiply, add, neighborhood)
        transposed = reference.aggregate_transpose(other, filters, multiply, add, height, width, neighborhood)
        scores = reference.scores(other, values, multiply, add, bias, heads, neighborhood)
        static = reference.static_grad(other, values, filters, neighborhood)
    expected = slow_sum(values, filters, multiply, add, *neighborhood)
    torch.testing.assert_close(got, expected)
    # <y, Fv> = <F'y, v>: the others are the transposes of a sum that is linear in each of its operands
    torch.testing.assert_close((transposed * values).sum(), (other * expected).sum())
    without = expected if add is None else slow_sum(values, filters, multiply, None, *neighborhood)
    terms = (other * without).sum()
    if add is not None:
        terms = terms + slow_sum(values, filters, add, None, *neighborhood).sum()
    if bias is not None:
        terms = terms + slow_bias(filters, bias, height, width, *neighborhood)
    torch.testing.assert_close((scores * filters).sum(), terms)
    for operand, found in ((multiply, static[0]), (add, static[1])):
        if operand is not None:
            part = (operand, None) if operand is multiply else (None, operand)
            alone = slow_sum(values, filters if operand is multiply else filters * 0, *part, *neighborhood)
            torch.testing.assert_close((found * operand).sum(), (other * alone).sum())


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_of_every_input_twice(border: str, stride: int) -> None:
    torch.manual_seed(0)
    rows, columns = (3, 4) if stride == 1 else (2, 2)
    offsets = offsets_per_axis(3, border) ** 2

    def draw(*size: int) -> Tensor:
        return torch.randn(size, dtype=torch.float64, requires_grad=True)

    values, outputs, filters = draw(2, 3, 4, 2), draw(2, rows, columns, 2), draw(2, rows, columns, 1, 9)
    multiply, add, bias = draw(1, 2, offsets), draw(2, 2, offsets), draw(1, offsets)
    where = (3, 1, border, stride)
    calls = [
        (lambda v, f, m, a: sums.aggregate(v, f, m, a, *where), (values, filters, multiply, add)),
        (
            lambda y, f, m, a: sums.aggregate_transpose(y, f, m, a, 3, 4, *where),
            (outputs, filters, multiply, add),
        ),
        (
            lambda q, k, m, a, b: sums.scores(q, k, m, a, b, 1, *where),
            (outputs, values, multiply, add, bias),
        ),
        (lambda y, v, f: sums.static_grad(y, v, f, *where), (outputs, values, filters)),
    ]
    for call, operands in calls:
        assert torch.autograd.gradcheck(call, operands, fast_mode=True)
        assert torch.autograd.gradgradcheck(call, operands, fast_mode=True)


def test_registration_is_sound() -> None:
    values, filters = (
        torch.randn(1, 4, 5, 4, requires_grad=True),
        torch.randn(1, 2, 3, 2, 9, requires_grad=True),
    )
    outputs, static = torch.randn(1, 2, 3, 4, requires_grad=True), torch.randn(1, 4, 9, requires_grad=True)
    check, where = torch.library.opcheck, (3, 1, "zero", 2)
    check(sums.aggregate, (values, filters, None, None, *where))
    check(sums.aggregate, (values, filters, static, static, *where))
    check(sums.aggregate_transpose, (outputs, filters, static, None, 4, 5, *where))
    check(sums.scores, (outputs, values, static, None, None, 2, *where))
    check(sums.scores, (outputs, values, None, static, torch.randn(2, 9, requires_grad=True), 2, *where))
    check(sums.static_grad, (outputs, values, filters, *where))


@pytest.mark.parametrize("stride", [1, 2])
def test_one_filter_for_all_positions_of_an_image_or_of_all(stride: int) -> None:
    torch.manual_seed(0)
    values = torch.randn(2, 6, 7, 6)
    for images in (1, 2):
        filters = torch.randn(images, 1, 1, 3, 9)
        got = kernels.aggregate(values, filters, kernel=3, dilation=2, stride=stride)
        everywhere = filters.expand(2, *got.shape[1:3], -1, -1)
        torch.testing.assert_close(got, slow_sum(values, everywhere, None, None, 3, 2, "zero", stride))


@pytest.mark.parametrize("border", BORDERS)
def test_static_factors_of_dynamic_and_of_static_filters(border: str) -> None:
    torch.manual_seed(0)
    values, multiply, add = torch.randn(2, 6, 7, 6), *torch.randn(2, 1, 6, offsets_per_axis(3, border) ** 2)
    for filters in (torch.randn(2, 6, 7, 3, 9), torch.randn(1, 1, 1, 3, 9)):
        everywhere = filters.expand(2, 6, 7, -1, -1)
        for pair in ((multiply, add), (None, add), (multiply, None)):
            static = dict(zip(("multiply", "add"), pair, strict=True))
            got = kernels.aggregate(values, filters, kernel=3, dilation=2, border=border, **static)
            torch.testing.assert_close(got, slow_sum(values, everywhere, *pair, 3, 2, border))


@pytest.mark.parametrize("border", BORDERS)
def test_scores_with_every_term(border: str) -> None:
    """Every gradient in every precision, of a bias that keeps its own."""
    torch.manual_seed(0)
    offsets = offsets_per_axis(3, border) ** 2
    shapes = ((2, 4, 3, 6), (2, 8, 6, 6), (1, 6, offsets), (2, 6, offsets), (3, offsets))
    inputs, weight = [torch.randn(shape) for shape in shapes], torch.randn(2, 4, 3, 3, 9)
    where = {"kernel": 3, "dilation": 2, "border": border, "stride": 2}

    def terms(*given: Tensor) -> list[Tensor]:
        given = tuple(x.detach().requires_grad_() for x in given)
        query, key, multiply, add, bias = given
        scores = kernels.scores(query, key, 3, multiply=multiply, add=add, bias=bias, **where)
        assert scores.dtype == query.dtype
        return [scores, *torch.autograd.grad(scores, given, weight.to(scores))]

    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        rounded = [*(x.to(dtype) for x in inputs[:4]), inputs[4]]
        found, expected = terms(*rounded), terms(*(x.double() for x in rounded))
        assert found[-1].dtype == torch.float32
        for got, truth in zip(found, expected, strict=True):
            scale = truth.abs().max().item()
            torch.testing.assert_close(got.double(), truth, rtol=0, atol=tolerance * scale)


def test_terms_that_are_added_to_queries_count_as_products() -> None:
    def flops(*terms: Tensor | None) -> int:
        query, key = torch.zeros(1, 2, 3, 4, device="meta"), torch.zeros(1, 4, 5, 4, device="meta")
        with FlopCounterMode(display=False) as counter:
            sums.scores(query, key, *terms, 2, 3, 1, "zero", 2)
        return counter.get_total_flops()

    static, bias = torch.zeros(1, 4, 9, device="meta"), torch.zeros(2, 9, device="meta")
    assert flops(None, None, None) == flops(static, None, bias) == 2 * 2 * 3 * 4 * 9
    assert flops(None, static, None) == flops(static, static, bias) == 4 * 2 * 3 * 4 * 9
