"""SAN's filters and LESA's attention made in parts, against the plain forms that keep all pairs."""

from __future__ import annotations

import copy
from types import ModuleType
from typing import Any

import pytest
import torch
from tests.ops.small import build, close, drawn, image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ablate.bench import memory
from ablate.kernels import pairwise_features as relations
from ablate.kernels.pairwise_features import parts, similarities
from ablate.ops import binary
from ablate.ops.zoo import san

FORMS = ("san_pairwise", "san_patchwise")
LESA: dict[str, dict[str, Any]] = {
    "lesa": {},
    "lesa_qr": {},
    "lesa_window": {"index": 1},
}
NORMS = {"training": (True, True), "first norm frozen": (False, True), "evaluation": (False, False)}


def step(operator: nn.Module, x: Tensor, compiled: bool = False) -> dict[str, Tensor]:
    """Output, every gradient and the buffers afterwards, of a copy."""
    operator, x = copy.deepcopy(operator), x.detach().requires_grad_()
    y = (torch.compile(operator, fullgraph=True, backend="aot_eager") if compiled else operator)(x)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(3)).to(y)
    gradients = torch.autograd.grad(y, [x, *operator.parameters()], direction)
    names = ["gradient of x", *(name for name, _ in operator.named_parameters())]
    return {"y": y.detach(), **dict(zip(names, gradients, strict=True)), **dict(operator.named_buffers())}


def same_in_parts(operator: nn.Module, x: Tensor, zoo: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, which the plain form computes, a step is what it is in parts."""
    expected = step(operator, x)
    with monkeypatch.context() as patch:
        patch.setattr(zoo, "fast", lambda _: True)
        found = step(operator, x)
    for key, value in expected.items():
        close(found[key], value)


@pytest.mark.parametrize("norms", NORMS)
@pytest.mark.parametrize("entries", [1, 3000, 2**20], ids=["rows", "images", "one"])
@pytest.mark.parametrize("name", FORMS)
def test_parts_are_the_plain_form(
    name: str, entries: int, norms: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(parts.ENTRIES, "cpu", entries)
    for kernel, size in ((1, (2, 3)), (3, (5, 7)), (5, (3, 4))):
        operator = drawn(build(name, resolution=size, kernel=kernel))
        for layer, training in zip((0, 3), NORMS[norms], strict=True):
            operator.weights[layer].train(training)
        same_in_parts(operator, image(*size, batch=3), san, monkeypatch)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("entries", [1, 2**20], ids=["tables", "one"])
@pytest.mark.parametrize("name", LESA)
def test_similarities_in_parts_are_the_plain_form(
    name: str, entries: int, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flattened, two-dimensional and decomposed positions; whole maps, and windows with a seam."""
    monkeypatch.setitem(similarities.ENTRIES, "cpu", entries)
    operator = drawn(build(name, resolution=(4, 6), **LESA[name])).train()
    operator.binary.similarity_norm.train(training)
    same_in_parts(operator, image(4, 6, batch=9), binary, monkeypatch)


@pytest.mark.parametrize("name", FORMS)
def test_memory_grows_by_the_filters_and_by_nothing_else(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(parts.ENTRIES, "cpu", 2**10)
    x, beside = image(40, 40, dim=16, dtype=torch.float32), {}
    for kernel in (3, 9):
        operator = build(name, 16, resolution=(40, 40), kernel=kernel).train()
        step(operator, x)  # compiles what is not yet
        filters = 4 * x[..., 0].numel() * (16 // 8) * kernel**2
        beside[kernel] = memory.peak(lambda operator=operator: step(operator, x), x.device) - 2 * filters
    assert beside[9] < 1.3 * beside[3]  # padded maps are a little larger; K² is 9 times as large


def test_similarities_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training holds the attention and the maps of one part; the plain form holds all similarities."""
    monkeypatch.setitem(similarities.ENTRIES, "cpu", 1)
    operator, x = build("lesa", resolution=(12, 12)).train(), image(12, 12, batch=32, dtype=torch.float32)
    map_bytes, found = 4 * len(x) * 2 * 144**2, []
    for fast in (True, False):
        monkeypatch.setattr(binary, "fast", lambda _, fast=fast: fast)
        step(operator, x)
        found.append(memory.peak(lambda: step(operator, x), x.device) / map_bytes)
    assert found[0] < 3 < 9 < found[1], found


@pytest.mark.parametrize("name", FORMS)
def test_compiles_as_one_graph_and_counts_as_the_plain_form(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = drawn(build(name)).float().train()
    x = image(5, 7, dtype=torch.float32)
    try:
        found = step(operator, x, compiled=True)
    finally:
        torch._dynamo.reset()
    for key, value in step(operator, x).items():
        torch.testing.assert_close(found[key], value)
    counts = []
    for fast in (True, False):
        monkeypatch.setattr(san, "fast", lambda _, fast=fast: fast)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            operator.eval()(x)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1]


def test_statistics_of_maps_far_from_zero() -> None:
    """Of float32 maps as of all their pairs in float64: no difference of large squares."""
    own, neighbor = (300 + image(*size, batch=3).movedim(-1, 1).float() for size in ((8, 6), (10, 8)))
    taps = neighbor.unfold(2, 3, 1).unfold(3, 3, 1).double()  # (B, C, H, W, K, K)
    differences = own.double()[..., None, None] - taps

    def equal(found: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)

    mean, variance = relations.of_differences(own, neighbor, 3)
    equal(mean, differences.mean((0, 2, 3, 4, 5)))
    equal(variance, differences.var((0, 2, 3, 4, 5), correction=0))
    mean, variance = relations.of_taps(neighbor, 3)
    equal(mean, taps.mean((0, 2, 3)))
    equal(variance, taps.var((0, 2, 3), correction=0))
    mean, covariance = relations.pair_moments(own, neighbor - 300, 3)
    hidden = (differences + 300).relu().transpose(0, 1).flatten(1)
    equal(mean / 300, hidden.mean(1) / 300)
    equal(covariance, hidden.cov(correction=0))


def test_registration_is_sound() -> None:
    def draw(*size: int) -> Tensor:
        return torch.randn(size, requires_grad=True)

    own, neighbor, check = draw(2, 3, 4, 5), draw(2, 3, 6, 7), torch.library.opcheck
    check(relations.pair_moments, (own, neighbor, 3))
    check(relations.pair_filters, (own, neighbor, draw(4, 3), draw(4), draw(2, 4), draw(2), 3))
    check(relations.patch_features, (neighbor, draw(3, 3, 3), draw(3, 3, 3), draw(2, 3, 3, 3), 3))


@pytest.mark.parametrize("name", FORMS)
def test_another_norm_and_a_second_derivative_are_left_to_the_plain_form(name: str) -> None:
    operator = drawn(build(name)).float().eval()
    x = image(5, 7, dtype=torch.float32).requires_grad_()
    y = operator(x)
    of_all = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(operator))
    torch.testing.assert_close(of_all(x), y)
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        gradient.sum().backward()
