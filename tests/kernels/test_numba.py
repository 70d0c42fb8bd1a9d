"""The compiled loops against the reference in float64: values, every gradient, every border."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate import kernels
from ablate.errors import UserError
from ablate.kernels import dispatch
from ablate.kernels import neighborhood_sums as sums
from ablate.kernels._numba import run, simd, taps
from ablate.kernels.geometry import Neighborhood, offsets_per_axis
from ablate.kernels.neighborhood_attention import numba as attention_cpu
from ablate.kernels.neighborhood_attention import reference as attention_reference
from ablate.kernels.neighborhood_attention.inputs import Inputs
from ablate.kernels.neighborhood_sums import numba as cpu
from ablate.kernels.neighborhood_sums import reference
from ablate.ops.axes import BORDERS

WIDTHS = (1, 3, 48)  # of a head: one lane, a width that is no power of two, several vectors


@pytest.fixture(autouse=True)
def chosen() -> Iterator[None]:
    yield
    kernels.use("auto")


@st.composite
def neighborhoods(draw: st.DrawFn) -> tuple:
    kernel, dilation = draw(st.sampled_from([1, 3, 7, 13])), draw(st.integers(1, 2))
    border, stride = draw(st.sampled_from([*BORDERS, "reflect"])), draw(st.integers(1, 3))
    smallest = {"inside": kernel * dilation, "reflect": kernel // 2 * dilation + 1}.get(border, 1)
    height, width = (draw(st.integers(smallest, smallest + 9)) for _ in range(2))
    heads = draw(st.integers(1, 3))
    return height, width, heads, heads * draw(st.sampled_from(WIDTHS)), (kernel, dilation, border, stride)


@settings(max_examples=35, deadline=None)
@given(neighborhoods(), st.sampled_from([(0, 0, 0), (1, 0, 1), (0, 1, 0), (2, 1, 1)]))
def test_the_sums(shape: tuple, static: tuple[int, int, int]) -> None:
    """Without static factors, with either and both, of all images or of each; with a bias and without."""
    height, width, heads, channels, neighborhood = shape
    kernel, _, border, stride = neighborhood
    rows, columns = -(-height // stride), -(-width // stride)
    generator = torch.Generator().manual_seed(height * 100 + width)

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator)

    values, outputs = draw(2, height, width, channels), draw(2, rows, columns, channels)
    filters = draw(2, rows, columns, heads, kernel**2)
    offsets = offsets_per_axis(kernel, border) ** 2
    multiply, add = (draw(number, channels, offsets) if number else None for number in static[:2])
    bias = draw(heads, offsets) if static[2] else None
    calls = {
        "aggregate": (values, filters, multiply, add),
        "aggregate_transpose": (outputs, filters, multiply, add, height, width),
        "scores": (outputs, values, multiply, add, bias, heads),
        "static_grad": (outputs, values, filters),
    }
    for name, operands in calls.items():
        exact = [x.double() if isinstance(x, torch.Tensor) else x for x in operands]
        shared = [static[0] == 1] if name == "static_grad" else []
        with mock.patch.object(cpu, "PIECES", 1 + height % 2 * 8):  # both images by one thread, or each
            found, expected = (
                getattr(module, name)(*inputs, Neighborhood(*neighborhood), *shared)
                for module, inputs in ((cpu, operands), (reference, exact))
            )
        for got, truth in zip(
            *(x if name == "static_grad" else (x,) for x in (found, expected)), strict=True
        ):
            scale = max(truth.abs().max().item(), 1)
            torch.testing.assert_close(got.double(), truth, rtol=0, atol=2e-6 * scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_gradient_in_every_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    shapes = ((2, 9, 7, 24), (2, 5, 4, 3, 25))
    inputs = [torch.randn(shape).to(dtype).requires_grad_() for shape in shapes]
    y = kernels.aggregate(*inputs, kernel=5, stride=2)
    assert y.dtype == dtype
    weight = torch.randn_like(y)
    found = torch.autograd.grad(y, inputs, weight)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    expected = torch.autograd.grad(kernels.aggregate(*exact, kernel=5, stride=2), exact, weight.double())
    tolerance = 1e-6 if dtype == torch.float32 else torch.finfo(dtype).eps
    for got, truth in zip(found, expected, strict=True):
        scale = truth.abs().max().item()
        torch.testing.assert_close(got.double(), truth, rtol=tolerance, atol=tolerance * scale)


def test_repetition_gives_the_same_bits_whatever_the_threads() -> None:
    values, filters = torch.randn(2, 20, 21, 64), torch.randn(2, 20, 21, 2, 49)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            found.append(sums.aggregate_transpose(values, filters, None, None, 20, 21, 7, 1, "zero", 1))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[1], found[2])


def test_forks_and_threads_compute_too() -> None:
    """A fork has none of the threads that the loops run on: the reference computes there."""
    values, filters = torch.randn(1, 9, 9, 32), torch.randn(1, 9, 9, 1, 9)

    class Aggregated(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> torch.Tensor:
            return kernels.aggregate(values, filters, kernel=3)[0]

    expected = kernels.aggregate(values, filters, kernel=3)[0]
    with ThreadPoolExecutor(3) as pool:
        assert all(torch.equal(x, expected) for x in pool.map(Aggregated().__getitem__, range(6)))
    context = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    loader = torch.utils.data.DataLoader(Aggregated(), num_workers=1, multiprocessing_context=context)
    for found in loader:
        torch.testing.assert_close(found[0], expected)


def test_nothing_is_left_unwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    def nan(*size: int) -> torch.Tensor:
        return torch.full(size, float("nan"))

    monkeypatch.setattr(cpu.torch, "empty", nan)
    key, query = torch.randn(1, 6, 5, 32), torch.randn(1, 6, 5, 32)
    filters = torch.randn(1, 6, 5, 2, 49)
    for neighborhood in (Neighborhood(7, border="zero"), Neighborhood(7, border="mask")):
        assert cpu.scores(query, key, None, None, None, 2, neighborhood).isfinite().all()
        assert cpu.aggregate(key, filters, None, None, neighborhood).isfinite().all()
        assert cpu.aggregate_transpose(query, filters, None, None, 6, 5, neighborhood).isfinite().all()


def test_who_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    single, double = torch.zeros(1), torch.zeros(1, dtype=torch.float64)
    assert dispatch.implementation(single, "neighborhood_sums") is cpu
    assert dispatch.implementation(double, "neighborhood_sums") is reference
    kernels.use("reference")
    assert dispatch.implementation(single, "neighborhood_sums") is reference
    with pytest.raises(UserError, match="did you mean 'reference'"):
        kernels.use("referense")
    kernels.use("auto")
    monkeypatch.setitem(dispatch.MISSING, "cpu", "numba")
    assert dispatch.implementation(single, "neighborhood_sums") is reference
    assert "not installed" in str(dispatch.hindrance("cpu"))


@pytest.mark.parametrize("transposed", [False, True])
def test_interior_positions_are_computed_in_regular_blocks(transposed: bool) -> None:
    found = taps.tap_blocks(56, Neighborhood(7), transposed)
    assert found.regular.tolist() == [False, *[True] * 12, False]
    tap = found.tap.reshape(-1, taps.BLOCK)[found.first[1] : found.first[2]]
    met = [tap[place : place + 7, place].tolist() for place in range(taps.BLOCK)]
    assert met == [list(range(7))[:: -1 if transposed else 1]] * taps.BLOCK
    assert (np.diff(found.other[found.first[1] : found.first[2]]) == 1).all()


@given(
    st.integers(14, 30),
    st.sampled_from([1, 3, 7]),
    st.integers(1, 2),
    st.sampled_from([*BORDERS, "reflect"]),
    st.integers(1, 3),
)
def test_blocks_and_runs_are_the_same_walks(
    length: int, kernel: int, dilation: int, border: str, stride: int
) -> None:
    neighborhood = Neighborhood(kernel, dilation, border, stride)
    for transposed in (False, True):
        plain, found = (
            taps.tap_list(length, neighborhood, transposed),
            taps.tap_blocks(length, neighborhood, transposed),
        )
        one_by_one = [
            (i, *entry)
            for i in range(len(plain.first) - 1)
            for entry in zip(
                *(x[plain.first[i] : plain.first[i + 1]].tolist() for x in plain[1:]), strict=True
            )
        ]
        in_blocks = [
            (
                4 * block + place,
                found.other[entry],
                found.tap[4 * entry + place],
                found.offset[4 * entry + place],
            )
            for block in range(len(found.first) - 1)
            for entry in range(found.first[block], found.first[block + 1])
            for place in range(4)
            if found.tap[4 * entry + place] != taps.NONE
        ]
        assert sorted(one_by_one) == sorted(in_blocks)
        if not transposed:
            in_one_go = taps.tap_runs(length, neighborhood)
            in_runs = [
                (begin + i, other + i * step, tap, offset)
                for tap, offset, begin, count, other, step in zip(*in_one_go, strict=True)
                for i in range(count)
            ]
            assert sorted(in_runs) == sorted(one_by_one)


def test_vectors_are_as_wide_as_a_head_allows() -> None:
    widest: Callable[[], int] = simd.widest
    assert [len(simd.lanes_for(width)) for width in (1, 3, 8, 12, 96)] == [1, 1, 8, 4, min(32, widest())]


def test_an_installation_that_cannot_be_written_compiles_without_a_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*, cache: bool = False, **options: object) -> Callable:
        if cache:
            raise RuntimeError("cannot cache function: no locator available for file")
        return lambda loop: loop

    monkeypatch.setattr(run, "njit", refuse)
    assert run.compiled(len) is len


def test_processes_that_start_together_compile_a_loop_once(tmp_path: Path) -> None:
    program = """
import torch
from ablate import kernels
kernels.aggregate(torch.ones(1, 9, 9, 32), torch.ones(1, 9, 9, 1, 9), kernel=3)
"""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=240)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert "".join(said).count("compiled the CPU kernel") == 1, said


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 12),
    st.sampled_from([(3, 16), (2, 32)]),
    st.sampled_from([1, 3, 5, 7]),
    st.integers(1, 2),
    st.sampled_from(BORDERS),
    st.booleans(),
)
def test_attention_in_one_pass(
    height: int, width: int, heads: tuple[int, int], kernel: int, dilation: int, border: str, has_axial: bool
) -> None:
    if border == "inside":
        height, width = (side + kernel * dilation - 1 for side in (height, width))
    neighborhood, channels = Neighborhood(kernel, dilation, border), heads[0] * heads[1]
    generator = torch.Generator().manual_seed(height * 100 + width)
    maps = [torch.randn(2, height, width, channels, generator=generator) * 0.5 for _ in range(4)]
    bias = torch.randn(heads[0], offsets_per_axis(kernel, border) ** 2, generator=generator)
    axis = offsets_per_axis(kernel, border)
    axial = torch.randn(2, height, width, heads[0], 2 * axis, generator=generator) if has_axial else None
    query, key, value, grad = maps
    inputs = Inputs(query, key, value, bias, axial)
    out, rows = attention_cpu.attention(inputs, neighborhood)
    given = (grad, inputs, out, rows, neighborhood)
    found = (out, rows, *attention_cpu.backward(*given))
    for module, all_of_them in ((attention_cpu, found[2:]), (attention_reference, None)):
        all_of_them = all_of_them or module.backward(*given)
        without = module.backward(*given, bias_gradient=False)
        assert not without[3].numel()
        for place in (0, 1, 2, 4):
            assert torch.equal(without[place], all_of_them[place])
    query, key, value, grad, bias = (x.double() for x in (*maps, bias))
    inputs = Inputs(query, key, value, bias, None if axial is None else axial.double())
    truth, sums = attention_reference.attention(inputs, neighborhood)
    *gradients, of_axial = attention_reference.backward(grad, inputs, truth, sums, neighborhood)
    assert found[-1].shape == of_axial.shape
    if has_axial:
        torch.testing.assert_close(found[-1].double(), of_axial, rtol=0, atol=1e-5)
    found = found[:-1]
    for got, expected in zip(found, (truth, sums, *gradients), strict=True):
        scale = max(expected.abs().max().item(), 1)
        if expected is gradients[-1]:  # a sum over all positions, each with its own rounding
            scale = max(scale, (2 * height * width) ** 0.5)
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=3e-6 * scale)


def test_attention_is_the_composition_of_the_sums_and_refuses_a_second_derivative() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(2, 6, 7, 32) for _ in range(3)] + [torch.randn(2, 25)]
    found = {}
    for dtype in (torch.float32, torch.float64):  # in one pass, and composed
        given = [x.to(dtype).requires_grad_() for x in inputs]
        y = kernels.attention(*given, kernel=5, border="mask")
        found[dtype] = (y, *torch.autograd.grad((y * y).sum(), given, create_graph=True))
    for got, expected in zip(found[torch.float32], found[torch.float64], strict=True):
        atol = 2e-6 * expected.abs().max().item()
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=atol)
    found[torch.float64][1].sum().backward()
    with pytest.raises(RuntimeError, match="has no second derivative"):
        found[torch.float32][1].sum().backward()


def test_attention_is_registered_soundly() -> None:
    given = [torch.randn(1, 5, 4, 16, requires_grad=True) for _ in range(3)]
    bias = torch.randn(1, 9, requires_grad=True)
    axial = torch.randn(1, 5, 4, 1, 6, requires_grad=True)
    for terms in ((bias, None), (bias, axial)):
        torch.library.opcheck(torch.ops.ablate.attention.default, (*given, *terms, 3, 1, "zero"))


def test_the_bias_has_a_gradient_where_it_needs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the others are the same bits without it."""
    maps, table = [torch.randn(1, 5, 4, 16, requires_grad=True) for _ in range(3)], torch.randn(1, 9)
    asked, backward = [], attention_cpu.backward
    monkeypatch.setattr(
        attention_cpu, "backward", lambda *given: asked.append(given[-1] is not False) or backward(*given)
    )
    found = []
    for bias in (table.clone().requires_grad_(), table):
        kernels.attention(*maps, bias, kernel=3).square().sum().backward()
        assert (bias.grad is not None) == bias.requires_grad
        found.append([x.grad for x in maps])
        for x in maps:
            x.grad = None
    assert asked == [True, False]
    assert all(map(torch.equal, *found))
    torch.library.opcheck(torch.ops.ablate.attention.default, (*maps, table, None, 3, 1, "zero"))


def test_attention_keeps_no_weights() -> None:
    """What autograd saves does not grow with the kernel."""
    kept = {}
    for kernel in (3, 7):
        inputs = [torch.randn(1, 14, 14, 32, requires_grad=True) for _ in range(3)]
        bias = torch.randn(1, kernel**2, requires_grad=True)
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, saved=saved: saved.append(x.numel()) or x, lambda x: x
        ):
            kernels.attention(*inputs, bias, kernel=kernel)
        kept[kernel] = sum(saved) - kernel**2
    assert kept[3] == kept[7] == 4 * 14 * 14 * 32 + 14 * 14


def test_an_empty_batch_has_gradients_of_zeros() -> None:
    maps, table = torch.randn(0, 5, 4, 32, requires_grad=True), torch.randn(1, 32, 9, requires_grad=True)
    filters = torch.randn(0, 5, 4, 2, 9)
    y = kernels.aggregate(maps, filters, kernel=3, multiply=table, add=table)
    bias = torch.randn(2, 9, requires_grad=True)
    y = y + kernels.attention(maps, maps, maps, bias, kernel=3)
    for got, like in zip(torch.autograd.grad(y.sum(), [maps, table, bias]), (maps, table, bias), strict=True):
        assert torch.equal(got, torch.zeros_like(like))
