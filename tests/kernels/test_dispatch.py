"""Who computes where, without a GPU: what a graph sees, autocast, and what a machine is told."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from tests.ops.small import WIDTHS, build
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from ablate import kernels, ops
from ablate.kernels import dispatch
from ablate.kernels.geometry import offsets_per_axis
from ablate.kernels.neighborhood_attention import fused


class Attention(nn.Module):
    """Linear queries, keys and values, as every operator has them."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.bias = nn.Linear(32, 96), nn.Parameter(torch.randn(2, 9))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (0.5 * self.linear(x)).chunk(3, dim=-1)
        return kernels.attention(query, key, value, self.bias, kernel=3, border="mask")


@pytest.mark.parametrize("who", dispatch.CHOICES)
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
            for given, expects in ((torch.float32, dtype), (torch.float64, torch.float64)):
                query = torch.randn(1, 5, 6, 32, dtype=given)
                scores = kernels.scores(query, query.float(), 2, kernel=3)
                assert kernels.aggregate(query, scores, kernel=3).dtype == scores.dtype == expects
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
    monkeypatch.setattr(dispatch, "_without_card", lambda: None)
    with FakeTensorMode():
        x = torch.empty(1, 7, 8, 2 * width, device="cuda", dtype=dtype, requires_grad=True)
        assert fused(x, 2, kernel, border) == expected
        if expected:
            bias = torch.empty(2, offsets_per_axis(kernel, border) ** 2, device="cuda")
            y = kernels.attention(x, x, x, bias, kernel=kernel, border=border)
            assert (y.shape, y.dtype, y.device) == (x.shape, dtype, x.device)
            assert "ablate_attention" in str(y.grad_fn)


FUSED = ("lsa", "manhattan", "plg", "rasa")  # operators whose regions or keys PyTorch's fused attention takes


@pytest.mark.parametrize("name", ops.names())
def test_deterministic_algorithms_keep_off_fused_attention(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On CUDA, where its gradients may differ from run to run; PyTorch only warns, as training lets it."""
    called = []

    def attention(query: Tensor, *others: Tensor, **settings: Any) -> Tensor:
        called.append(name)
        return query + 0

    monkeypatch.setattr(functional, "scaled_dot_product_attention", attention)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # no tensor without memory in a cache
    dim = WIDTHS.get(name, 8)
    operator = build(name, dim, resolution=(5, 7))
    state = {key: (x.shape, x.dtype) for key, x in operator.state_dict().items()}
    with FakeTensorMode(), torch.device("cuda"):
        tensors = {key: torch.empty(shape, dtype=dtype) for key, (shape, dtype) in state.items()}
        for enabled in (False, True):
            called.clear()
            torch.use_deterministic_algorithms(enabled, warn_only=True)
            try:
                torch.func.functional_call(operator, tensors, (torch.empty(2, 5, 7, dim),))
            finally:
                torch.use_deterministic_algorithms(False)
            assert set(called) == ({name} if name in FUSED and not enabled else set())


def test_deterministic_algorithms_can_be_asked_for_in_a_graph() -> None:
    """A graph follows the switch: it is compiled again, in one piece."""
    operator, x = build("lsa", resolution=(5, 7)), torch.randn(2, 5, 7, 8)
    compiled = torch.compile(operator, fullgraph=True, backend="eager")
    try:
        for enabled in (False, True):
            torch.use_deterministic_algorithms(enabled, warn_only=True)
            assert torch.equal(compiled(x), operator(x))
            assert torch.equal(torch.export.export(operator, (x,)).module()(x), operator(x))
    finally:
        torch.use_deterministic_algorithms(False)
        torch._dynamo.reset()


def test_a_machine_is_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    dispatch._without_card.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no CUDA device" in str(dispatch.hindrance("cuda"))
    dispatch._without_card.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda card: ((9, 0), (7, 5))[card])
    assert "8.0 is needed, a card here has 7.5" in str(dispatch.hindrance("cuda"))
    dispatch._without_card.cache_clear()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert dispatch.hindrance("cuda") is None
    monkeypatch.setitem(dispatch.MISSING, "cuda", "triton")
    assert "Triton is not installed" in str(dispatch.hindrance("cuda"))
    assert "no kernels for mps" in str(dispatch.hindrance("mps"))
    dispatch._without_card.cache_clear()


def test_a_graph_asks_without_breaking() -> None:
    def wait(x: Tensor) -> Tensor:
        return x + 1 if dispatch.hindrance("cuda") is None else x

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = torch.compile(wait, fullgraph=True, backend="eager")(torch.zeros(1))
    assert torch.equal(found, torch.zeros(1) + float(dispatch.hindrance("cuda") is None))
