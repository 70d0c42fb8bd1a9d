"""Who computes where, without a GPU: what a graph sees, autocast, and what a machine is told."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ablate.ops import kernels
from ablate.ops.kernels import choice
from ablate.ops.kernels.attention import fused
from ablate.ops.kernels.geometry import offsets_per_axis


class Attention(nn.Module):
    """Linear queries, keys and values, as every operator has them."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.bias = nn.Linear(32, 96), nn.Parameter(torch.randn(2, 9))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (0.5 * self.linear(x)).chunk(3, dim=-1)
        return kernels.attention(query, key, value, self.bias, kernel=3, border="mask")


@pytest.mark.parametrize("who", choice.CHOICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_attention_under_autocast(who: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    module, x = Attention(), torch.randn(2, 5, 6, 32, requires_grad=True)
    weights = torch.randn(2, 5, 6, 32)

    def run() -> tuple[Tensor, ...]:
        y = module(x)
        return y, *torch.autograd.grad((y * weights).sum(), [x, *module.parameters()])

    expected = run()
    kernels.use(who)
    try:
        with torch.autocast("cpu", dtype):
            found = run()
            query = torch.randn(1, 5, 6, 32)  # what autocast has not touched keeps its precision
            scores = kernels.scores(query, query, 2, kernel=3)
            assert kernels.aggregate(query, scores, kernel=3).dtype == scores.dtype == torch.float32
    finally:
        kernels.use("auto")
    assert found[0].dtype == dtype
    for got, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(got.float(), truth, rtol=0, atol=0.02 * truth.abs().max().item())


@pytest.mark.parametrize(
    ("width", "kernel", "border", "dtype", "expected"),
    [
        (32, 3, "mask", torch.float32, True),
        (64, 7, "inside", torch.bfloat16, True),
        (33, 3, "zero", torch.float32, False),
        (72, 3, "zero", torch.float16, False),
        (16, 59, "zero", torch.float16, False),
        (16, 3, "reflect", torch.float32, False),
        (16, 3, "zero", torch.float64, False),
    ],
)
def test_what_a_gpu_computes_in_one_pass(
    width: int, kernel: int, border: str, dtype: torch.dtype, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked of tensors without memory, as while a graph is compiled: nothing is proved or computed."""
    monkeypatch.setattr(choice, "_without_card", lambda: None)
    with FakeTensorMode():
        x = torch.empty(1, 7, 8, 2 * width, device="cuda", dtype=dtype, requires_grad=True)
        assert fused(x, 2, kernel, border) == expected
        if expected:
            bias = torch.empty(2, offsets_per_axis(kernel, border) ** 2, device="cuda")
            y = kernels.attention(x, x, x, bias, kernel=kernel, border=border)
            assert (y.shape, y.dtype, y.device) == (x.shape, dtype, x.device)
            assert "ablate_attention" in str(y.grad_fn)


def test_a_machine_is_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    choice._without_card.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no CUDA device" in str(choice.hindrance("cuda"))
    choice._without_card.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda card: ((9, 0), (7, 5))[card])
    assert "8.0 is needed, a card here has 7.5" in str(choice.hindrance("cuda"))
    choice._without_card.cache_clear()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choice.hindrance("cuda") is None
    monkeypatch.setitem(choice.MISSING, "cuda", "triton")
    assert "Triton is not installed" in str(choice.hindrance("cuda"))
    assert "no kernels for mps" in str(choice.hindrance("mps"))
    choice._without_card.cache_clear()


def test_a_graph_asks_without_breaking() -> None:
    def wait(x: Tensor) -> Tensor:
        return x + 1 if choice.hindrance("cuda") is None else x

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = torch.compile(wait, fullgraph=True, backend="eager")(torch.zeros(1))
    assert torch.equal(found, torch.zeros(1) + float(choice.hindrance("cuda") is None))
