"""Sums over samples: the loops against the reference, the reference against the definition."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ablate import kernels
from ablate.kernels import dispatch, sampled_sums
from ablate.kernels.sampled_sums import numba as cpu
from ablate.kernels.sampled_sums import reference


@pytest.fixture(autouse=True)
def chosen() -> Iterator[None]:
    yield
    kernels.use("auto")


def draw(
    size: tuple[int, int], heads: int, width: int, taps: int, stride: int = 1, groups: int | None = None
) -> tuple[Tensor, ...]:
    """Values, weights, displacements (a few of them whole or far away) and a gradient, in float32."""
    generator = torch.Generator().manual_seed(size[0] * 100 + size[1] + width)
    rows, columns = (-(-side // stride) for side in size)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    displacements = 3 * normal(2, rows, columns, groups or heads, taps, 2)
    flat = displacements.view(-1)
    flat[::5], flat[3::11] = flat[::5].round(), flat[3::11] * 1e8
    values, grad = normal(2, *size, heads * width), normal(2, rows, columns, heads * width)
    return values, normal(2, rows, columns, heads, taps), displacements, grad


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from([(1, 1), (3, 3), (4, 2), (3, 1)]),
    st.sampled_from([1, 3, 16, 48]),
    st.sampled_from([1, 4, 9]),
    st.integers(1, 2),
)
def test_the_loops(size: tuple[int, int], heads: tuple[int, int], width: int, taps: int, stride: int) -> None:
    values, weights, displacements, grad = draw(size, heads[0], width, taps, stride, heads[1])
    operands = values, weights, displacements
    exact = [x.double() for x in operands]
    found = cpu.aggregate(*operands, stride), *cpu.backward(grad, *operands, stride)
    expected = reference.aggregate(*exact, stride), *reference.backward(grad.double(), *exact, stride)
    for got, truth in zip(found, expected, strict=True):
        scale = max(truth.abs().max().item(), 1)
        torch.testing.assert_close(got.double(), truth, rtol=0, atol=4e-6 * scale)


@settings(max_examples=10, deadline=None)
@given(st.tuples(st.integers(1, 6), st.integers(1, 6)), st.integers(1, 2))
def test_the_reference_is_the_hat_function_of_distances(size: tuple[int, int], stride: int) -> None:
    values, weights, displacements, _ = (x.double() for x in draw(size, 2, 3, 4, stride))
    rows, columns = (torch.arange(0, side, stride)[:, None, None] for side in size)
    row, column = displacements[..., 0] + rows[:, None], displacements[..., 1] + columns
    hats = [
        (1 - (place[..., None] - torch.arange(side)).abs()).relu()
        for place, side in ((row, size[0]), (column, size[1]))
    ]
    by_head = values.unflatten(-1, (2, 3))
    expected = torch.einsum("bijgt,bijgth,bijgtw,bhwgd->bijgd", weights, *hats, by_head).flatten(3)
    torch.testing.assert_close(
        sampled_sums.aggregate(values, weights, displacements, stride=stride), expected
    )


def test_gradients_are_those_of_finite_differences() -> None:
    values, weights, displacements, _ = (x.double() for x in draw((4, 5), 2, 3, 4, groups=1))
    displacements = displacements.clamp(-9, 9).floor() + 0.3  # away from the kinks
    inputs = [x.requires_grad_() for x in (values, weights, displacements)]
    assert torch.autograd.gradcheck(sampled_sums.aggregate, inputs)
    (first,) = torch.autograd.grad(sampled_sums.aggregate(*inputs).sum(), values, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        first.sum().backward()


def test_the_operator_keeps_the_rules_of_pytorch() -> None:
    values, weights, displacements, grad = draw((5, 4), 2, 8, 4)
    operands = tuple(x.requires_grad_() for x in (values, weights, displacements))
    torch.library.opcheck(sampled_sums._sums, (*operands, 1))
    torch.library.opcheck(
        sampled_sums._backward, (grad, *(x.detach() for x in operands), 1), test_utils="test_schema"
    )


def test_only_its_operands_are_kept_and_both_implementations_count_alike() -> None:
    *operands, _ = draw((6, 7), 2, 16, 9)
    operands = [x.requires_grad_() for x in operands]
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        sampled_sums.aggregate(*operands)
    assert sum(kept) == sum(x.numel() for x in operands)
    for who in dispatch.CHOICES:
        kernels.use(who)
        with FlopCounterMode(display=False) as counter:
            sampled_sums.aggregate(*operands)
        assert counter.get_total_flops() == 2 * 5 * 9 * operands[0].numel()


def test_repetition_gives_the_same_bits_whatever_the_threads() -> None:
    values, weights, displacements, grad = draw((20, 21), 3, 16, 9)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            found.append(cpu.backward(grad, values, weights, displacements, 1))
    finally:
        torch.set_num_threads(threads)
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_places_exact(dtype: torch.dtype) -> None:
    values, weights, displacements, grad = draw((5, 6), 2, 8, 4)
    values, weights = (x.to(dtype).requires_grad_() for x in (values, weights))
    y = sampled_sums.aggregate(values, weights, displacements)
    of_values, of_weights = torch.autograd.grad(y, (values, weights), grad.to(dtype))
    assert y.dtype == of_values.dtype == of_weights.dtype == dtype
    exact = sampled_sums.aggregate(values.double(), weights.double(), displacements.double())
    tolerance = torch.finfo(dtype).eps
    torch.testing.assert_close(y.double(), exact, rtol=tolerance, atol=tolerance)


def test_not_a_number_is_not_hidden() -> None:
    values, weights, displacements, _ = draw((4, 5), 1, 8, 4)
    displacements[0, 1, 2, 0, 3, 0] = float("nan")
    for who in dispatch.CHOICES:
        kernels.use(who)
        y = sampled_sums.aggregate(values, weights, displacements)
        assert y[0, 1, 2].isnan().all()
        assert y.isnan().sum() == 8


def test_on_cuda_pytorch_computes_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    monkeypatch.setattr(dispatch, "_without_card", lambda: None)
    monkeypatch.setattr(dispatch, "MISSING", {})
    with FakeTensorMode(), dispatch.recorded_fallbacks() as fallbacks:
        x = torch.empty(1, 4, 4, 16, device="cuda")
        assert sampled_sums._computing(x) is reference
    assert "no Triton kernel" in fallbacks["sampled_sums"]
