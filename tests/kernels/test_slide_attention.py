"""Attention over mixed neighbors: the compiled loops, and parts of a batch, against the reference."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ablate import kernels
from ablate.kernels import dispatch, slide_attention
from ablate.kernels.slide_attention import numba, parts, reference
from ablate.kernels.slide_attention.inputs import Inputs


@pytest.fixture(autouse=True)
def chosen() -> Iterator[None]:
    yield
    kernels.use("auto")


def operands_of(height: int, width: int, heads: int, head_width: int, kernel: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(height * 100 + width)
    taps = kernel**2
    maps = [(2, height, width, heads * head_width)] * 3
    tables = [(head_width, taps, taps), (head_width, taps), (heads, taps)]
    return [torch.randn(size, generator=generator) / 2 for size in (*maps, *tables)]


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 19),
    st.integers(1, 7),
    st.integers(1, 2),
    st.sampled_from([8, 24]),
    st.sampled_from([1, 3, 5]),
)
def test_the_loops(height: int, width: int, heads: int, head_width: int, kernel: int) -> None:
    """Maps of one and of several strips, kernels larger than they are."""
    operands = operands_of(height, width, heads, head_width, kernel)
    grad, exact = torch.randn_like(operands[0]), [x.double() for x in operands]
    found = (numba.attention(Inputs(*operands), kernel), *numba.backward(grad, Inputs(*operands), kernel))
    truth = reference.attention(Inputs(*exact), kernel)
    gradients = reference.backward(grad.double(), Inputs(*exact), kernel)
    for got, expected in zip(found, (truth, *gradients), strict=True):
        scale = max(expected.abs().max().item(), (2 * height * width) ** 0.5 / 4)
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=3e-6 * scale)


@pytest.mark.parametrize("who", [numba, reference, parts])
def test_whoever_computes_differentiates_within_the_operator(
    who: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against autograd of the forward pass, which is not there inside of an operator."""
    operands = operands_of(5, 4, 2, 8, 3)
    exact = [x.double().requires_grad_() for x in operands]
    grad = torch.randn_like(operands[0])
    truths = torch.autograd.grad(reference.attention(Inputs(*exact), 3), exact, grad.double())
    monkeypatch.setattr(slide_attention, "computing", lambda *_: who)
    given = [x.requires_grad_() for x in operands]
    found = torch.autograd.grad(kernels.slide_attention.attention(*given, kernel=3), given, grad)
    for got, truth in zip(found, truths, strict=True):
        torch.testing.assert_close(got.double(), truth, rtol=0, atol=1e-6 * truth.abs().max().item())


def test_it_is_registered_soundly_and_refuses_a_second_derivative() -> None:
    operands = [x.requires_grad_() for x in operands_of(5, 4, 2, 8, 3)]
    torch.library.opcheck(torch.ops.ablate.slide_attention.default, (*operands, 3))
    y = kernels.slide_attention.attention(*operands, kernel=3)
    (slope,) = torch.autograd.grad(y.square().sum(), operands[0], create_graph=True)
    with pytest.raises(RuntimeError, match="has no second derivative"):
        slope.sum().backward()
    again = torch.autograd.grad(kernels.slide_attention.attention(*operands, kernel=3).sum(), operands)
    for one, other in zip(
        again,
        torch.autograd.grad(kernels.slide_attention.attention(*operands, kernel=3).sum(), operands),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_it_counts_and_keeps_what_it_needs() -> None:
    """As many FLOPs as the convolutions that gather; no map of a tap is saved."""
    operands = [x.requires_grad_() for x in operands_of(6, 5, 2, 8, 3)]
    counted, kept = {}, []
    for choice_ in dispatch.CHOICES:
        kernels.use(choice_)
        with FlopCounterMode(display=False) as counter:
            kernels.slide_attention.attention(*operands, kernel=3)
        counted[choice_] = counter.get_total_flops()
    assert counted["auto"] == counted["reference"]
    kernels.use("auto")
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        kernels.slide_attention.attention(*operands, kernel=3)
    assert sum(kept) == sum(x.numel() for x in operands)
    assert not slide_attention.fused(torch.empty(1, 2, 2, 12), 1)  # a head of 12 channels: the reference


@pytest.mark.parametrize("who", dispatch.CHOICES)
def test_autocast_does_not_reach_into_the_operator(who: str) -> None:
    """It returns the dtype that its fake implementation declares, forward and backward."""
    kernels.use(who)
    operands = operands_of(5, 4, 2, 8, 3)
    calls = {
        torch.ops.ablate.slide_attention: (*operands, 3),
        torch.ops.ablate.slide_attention_backward: (operands[0], *operands, 3),
    }
    for call, arguments in calls.items():
        expected = call(*arguments)
        with torch.autocast("cpu", torch.bfloat16):
            found = call(*arguments)
        for got, truth in zip(*(x if isinstance(x, tuple) else (x,) for x in (found, expected)), strict=True):
            assert torch.equal(got, truth)


@pytest.mark.parametrize("images", [1, 2, 5])
def test_parts_of_a_batch(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What computes on CUDA where the kernels do not: the same whether one, two or all images are a part."""
    query, key, value, *tables = (x.double() for x in operands_of(4, 5, 2, 3, 3))
    maps = [torch.cat([x, x.roll(1, 1), x[:1]]) for x in (query, key, value)]  # five images
    grad = torch.randn_like(maps[0])
    monkeypatch.setattr(parts, "MOST", images * 2 * 9 * maps[0][:1].numel())
    inputs = Inputs(*maps, *tables)
    found = (parts.attention(inputs, 3), *parts.backward(grad, inputs, 3))
    expected = (reference.attention(inputs, 3), *reference.backward(grad, inputs, 3))
    for got, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(got, truth)


@pytest.mark.parametrize(
    ("width", "kernel", "dtype", "who"),
    [
        (32, 3, torch.float32, "triton"),
        (20, 5, torch.float32, "triton"),
        (64, 5, torch.bfloat16, "triton"),
        (33, 3, torch.float32, "parts"),
        (72, 3, torch.float16, "parts"),
        (8, 7, torch.float16, "parts"),
    ],
)
def test_who_computes_on_a_gpu(
    width: int, kernel: int, dtype: torch.dtype, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large neighborhoods and wide heads take more registers than there are."""
    pytest.importorskip("triton")
    monkeypatch.setattr(dispatch, "_without_card", lambda: None)
    with FakeTensorMode():
        x = torch.empty(1, 7, 8, 2 * width, device="cuda", dtype=dtype)
        assert slide_attention.fused(x, 2)
        assert slide_attention.computing(x, 2, kernel).__name__ == f"ablate.kernels.slide_attention.{who}"
