"""The Triton kernels on a card: every form, every gradient, and the functions that choose them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from ablate import kernels, ops
from ablate.kernels import dispatch, selfcheck
from ablate.kernels.geometry import Neighborhood, offsets_per_axis, strided
from ablate.kernels.neighborhood_attention import fused

pytestmark = pytest.mark.gpu

HEIGHT, WIDTH = 27, 30
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
SEVERAL = 3  # roundings on the way to a gradient


class Case(NamedTuple):
    """Heads and a neighborhood."""

    heads: int
    head_width: int
    kernel: int
    dilation: int = 1
    border: str = "zero"
    stride: int = 1

    def sliding(self) -> dict[str, Any]:
        return dict(zip(("kernel", "dilation", "border", "stride"), self[2:], strict=True))


CASES = [
    Case(3, 32, 7),
    Case(3, 32, 7, 1, "inside"),
    Case(3, 32, 5, 2, "mask"),
    Case(2, 24, 13, 1, "inside"),
    Case(20, 1, 7),
    Case(20, 1, 5, 2, "inside"),
    Case(1, 200, 3),
    Case(1, 200, 3, 1, "reflect", 2),
    Case(4, 16, 7, 1, "zero", 2),
    Case(4, 16, 5, 2, "inside", 3),
    Case(5, 3, 3, 3, "reflect"),
    Case(1, 8, 17),
]


def drawn(*size: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(size).to(dtype)


def apart(got: Tensor, truth: Tensor) -> float:
    """The largest error, relative to the largest entry."""
    return float((got.cpu().double() - truth).abs().max() / truth.abs().max())


@pytest.fixture
def _empty_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_every_kernel_passes_its_self_check() -> None:
    assert dispatch.hindrance("cuda") is None
    assert selfcheck.failures(torch.device("cuda")) == []


@pytest.mark.usefixtures("_empty_is_nan")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_sums(case: Case) -> None:
    from ablate.kernels.neighborhood_sums import triton as cuda

    torch.manual_seed(0)
    neighborhood, channels = Neighborhood(*case[2:]), case.heads * case.head_width
    rows, columns = strided(HEIGHT, case.stride), strided(WIDTH, case.stride)
    offsets = offsets_per_axis(case.kernel, case.border) ** 2
    for dtype, tolerance in TOLERANCE.items():
        values, outputs = (
            drawn(2, *size, channels, dtype=dtype) for size in ((HEIGHT, WIDTH), (rows, columns))
        )
        filters = drawn(2, rows, columns, case.heads, case.kernel**2, dtype=dtype)
        of_all, of_each = (drawn(images, channels, offsets, dtype=dtype) for images in (1, 2))
        bias = drawn(case.heads, offsets, dtype=dtype)
        calls: list[tuple[Any, ...]] = [(cuda.static_grad, outputs, values, filters)]
        for multiply, add in ((None, None), (of_each, None), (of_all, of_each)):
            calls += [
                (cuda.aggregate, values, filters, multiply, add),
                (cuda.aggregate_transpose, outputs, filters, multiply, add, HEIGHT, WIDTH),
                (cuda.scores, outputs, values, multiply, add, None, case.heads),
            ]
        for multiply, add in ((None, None), (None, of_all), (of_each, of_all)):
            calls.append((cuda.scores, outputs, values, multiply, add, bias, case.heads))
        for proven, *arguments in calls:
            double = [x.double() if isinstance(x, Tensor) else x for x in arguments]
            there = [x.cuda() if isinstance(x, Tensor) else x for x in arguments]
            truth, got, again = (
                found if isinstance(found, tuple) else (found,)
                for found in (
                    proven.reference(*double, neighborhood),
                    proven.kernel(*there, neighborhood),
                    proven.kernel(*there, neighborhood),
                )
            )
            for one, other, true in zip(got, again, truth, strict=True):
                assert apart(one, true) < tolerance, (proven.name, dtype)
                assert torch.equal(one, other), f"{proven.name} gives other bits when repeated"


def gradients(
    function: Callable[..., Tensor], inputs: list[Tensor], weight: Tensor, **sliding: Any
) -> list[Tensor]:
    """The value, and the gradient of every input."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    y = function(*inputs, **sliding)
    return [y, *torch.autograd.grad(y, inputs, weight.to(y))]


def of_attention(*inputs: Tensor, **sliding: Any) -> Tensor:
    """The fifth input, where there is one, is axial."""
    return kernels.attention(*inputs[:4], axial=inputs[4] if len(inputs) > 4 else None, **sliding)


@pytest.mark.parametrize("axial", [False, True])
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("border", ["zero", "mask", "inside"])
def test_attention(border: str, dtype: torch.dtype, axial: bool) -> None:
    torch.manual_seed(0)
    for heads, width, kernel, dilation in ((3, 32, 7, 1), (2, 24, 3, 1), (4, 16, 5, 2), (1, 8, 13, 1)):
        maps = [drawn(2, HEIGHT, WIDTH, heads * width, dtype=dtype) * width**-0.25 for _ in range(4)]
        *inputs, weight = maps
        offsets = offsets_per_axis(kernel, border)
        inputs.append(torch.randn(heads, offsets**2))
        if axial:
            inputs.append(drawn(2, HEIGHT, WIDTH, heads, 2 * offsets, dtype=dtype))
        sliding: dict[str, Any] = {"kernel": kernel, "dilation": dilation, "border": border}
        truth = gradients(of_attention, [x.double() for x in inputs], weight.double(), **sliding)
        there = [x.cuda() for x in inputs]
        assert fused(there[0], heads, kernel, border)
        got, again = (gradients(of_attention, there, weight.cuda(), **sliding) for _ in range(2))
        for one, other, true in zip(got, again, truth, strict=True):
            assert apart(one, true) < SEVERAL * TOLERANCE[dtype], (heads, width, kernel)
            assert torch.equal(one, other)


def of_aggregate(values: Tensor, filters: Tensor, multiply: Tensor, add: Tensor, **sliding: Any) -> Tensor:
    return kernels.aggregate(values, filters, multiply=multiply, add=add, **sliding)


def of_scores(
    query: Tensor, key: Tensor, multiply: Tensor, add: Tensor, bias: Tensor, **sliding: Any
) -> Tensor:
    return kernels.scores(query, key, len(bias), multiply=multiply, add=add, bias=bias, **sliding)


@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_static_factors_in_a_graph_or_not(case: Case) -> None:
    torch.manual_seed(0)
    channels, offsets = case.heads * case.head_width, offsets_per_axis(case.kernel, case.border) ** 2
    rows, columns = strided(HEIGHT, case.stride), strided(WIDTH, case.stride)
    values, outputs = torch.randn(2, HEIGHT, WIDTH, channels), torch.randn(2, rows, columns, channels)
    filters = torch.randn(2, rows, columns, case.heads, case.kernel**2)
    factors = [torch.randn(images, channels, offsets) for images in (2, 1)]
    bias = torch.randn(case.heads, offsets)
    for plain, inputs, weight in (
        (of_aggregate, [values, filters, *factors], outputs),
        (of_scores, [outputs, values, *factors, bias], filters),
    ):
        truth = gradients(plain, [x.double() for x in inputs], weight.double(), **case.sliding())
        there = [x.cuda() for x in inputs]
        compiled = torch.compile(plain, fullgraph=True)
        for function in (plain, compiled, compiled):
            found = gradients(function, there, weight.cuda(), **case.sliding())
            for got, true in zip(found, truth, strict=True):
                assert apart(got, true) < SEVERAL * TOLERANCE[torch.float32]


def test_attention_in_a_graph_and_under_autocast() -> None:
    torch.manual_seed(0)
    linear, bias = torch.nn.Linear(64, 192), torch.nn.Parameter(torch.randn(2, 25))
    x, weight = torch.randn(2, HEIGHT, WIDTH, 64), torch.randn(2, HEIGHT, WIDTH, 64)

    def attend(x: Tensor, *parameters: Tensor) -> Tensor:
        query, key, value = (0.5 * torch.nn.functional.linear(x, *parameters[:2])).chunk(3, dim=-1)
        return kernels.attention(query, key, value, parameters[2], kernel=5)

    inputs = [x, linear.weight, linear.bias, bias]
    truth = gradients(attend, [x.double() for x in inputs], weight.double())
    compiled = torch.compile(attend, fullgraph=True)
    for function in (attend, compiled):
        with torch.autocast("cuda", torch.bfloat16):
            found = gradients(function, [x.cuda() for x in inputs], weight.cuda())
        assert found[0].dtype == torch.bfloat16
        for got, true in zip(found, truth, strict=True):
            assert apart(got, true) < SEVERAL * TOLERANCE[torch.bfloat16]


def test_second_derivatives() -> None:
    """Of `aggregate` with static factors: the derivative of `static_grad` too."""
    torch.manual_seed(0)
    shapes = ((1, 9, 8, 6), (1, 9, 8, 2, 9), (1, 6, 25), (1, 6, 25))
    exact = [torch.randn(shape, dtype=torch.float64) for shape in shapes]

    def second(*inputs: Tensor) -> tuple[Tensor, ...]:
        inputs = tuple(x.requires_grad_() for x in inputs)
        y = of_aggregate(*inputs, kernel=3, border="inside")
        first = torch.autograd.grad(y.pow(2).sum(), inputs, create_graph=True)
        return torch.autograd.grad(sum(x.pow(2).sum() for x in first), inputs)

    for got, true in zip(second(*(x.float().cuda() for x in exact)), second(*exact), strict=True):
        assert apart(got, true) < 1e-4


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize(("heads", "width", "kernel"), [(3, 32, 3), (2, 20, 5), (1, 8, 3), (4, 16, 1)])
def test_slide_attention(
    heads: int, width: int, kernel: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All at once and one image after the other."""
    from ablate.kernels.slide_attention import triton as cuda

    torch.manual_seed(0)
    taps, of_maps = kernel**2, (3, HEIGHT, WIDTH, heads * width)
    inputs = [drawn(*of_maps, dtype=dtype) * width**-0.25 for _ in range(3)]
    inputs += [torch.randn(size) / kernel for size in ((width, taps, taps), (width, taps), (heads, taps))]
    weight = drawn(*of_maps, dtype=dtype)
    truth = gradients(
        kernels.slide_attention.attention, [x.double() for x in inputs], weight.double(), kernel=kernel
    )
    there = [x.cuda() for x in inputs]
    for most in (cuda.MOST, 1):
        monkeypatch.setattr(cuda, "MOST", most)
        got, again = (
            gradients(kernels.slide_attention.attention, there, weight.cuda(), kernel=kernel)
            for _ in range(2)
        )
        for one, other, true in zip(got, again, truth, strict=True):
            scale = max(true.abs().max().item(), 1e-2)  # with one tap some gradients are zero
            error = (one.cpu().double() - true).abs().max().item()
            assert error < SEVERAL * TOLERANCE[dtype] * scale
            assert torch.equal(one, other)


def test_slide_attention_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of wider heads than the kernels take, in plain PyTorch: the device does not notice."""
    from ablate.kernels.slide_attention import parts

    torch.manual_seed(0)
    monkeypatch.setattr(parts, "MOST", 2 * 9 * HEIGHT * WIDTH * 40)  # one image at a time
    inputs = [torch.randn(3, HEIGHT, WIDTH, 40) for _ in range(3)]
    inputs += [torch.randn(size) / 2 for size in ((40, 9, 9), (40, 9), (1, 9))]
    weight = torch.randn(3, HEIGHT, WIDTH, 40)
    truth = gradients(
        kernels.slide_attention.attention, [x.double() for x in inputs], weight.double(), kernel=3
    )
    found = gradients(kernels.slide_attention.attention, [x.cuda() for x in inputs], weight.cuda(), kernel=3)
    for got, true in zip(found, truth, strict=True):
        assert apart(got, true) < 1e-3  # TF32 in the convolutions


@pytest.mark.parametrize("name", ops.names())
def test_every_operator(name: str) -> None:
    """What Triton computes is what PyTorch computes, forward and backward."""
    for stride in ops.spec(name).strides:
        torch.manual_seed(0)
        operator = ops.create(name, 64, heads=2, resolution=(14, 14), stride=stride, index=1).cuda().eval()
        x = torch.randn(2, 14, 14, 64, device="cuda", requires_grad=True)
        found = {}
        for who in dispatch.CHOICES:
            kernels.use(who)
            try:
                same = copy.deepcopy(operator)
                y = same(x)
                learned = [x, *(p for p in same.parameters() if p.requires_grad)]
                weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
                found[who] = (y, *torch.autograd.grad(y, learned, weight.cuda()))
            finally:
                kernels.use("auto")
        largest = max(x.abs().max().item() for x in found["reference"])
        for got, expected in zip(found["auto"], found["reference"], strict=True):
            scale = max(
                expected.abs().max().item(), 1e-2 * largest
            )  # some gradients are zero but for rounding
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-3 * scale)
