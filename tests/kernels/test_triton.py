"""The Triton kernels: values through the interpreter, machine code without a GPU, both on a GPU."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ablate.bench import aot
from ablate.ops.kernels.geometry import offsets_per_axis
from ablate.ops.kernels.sums import reference
from ablate.ops.kernels.tiling.matrix import MatrixTile
from ablate.ops.kernels.tiling.reach import reach
from ablate.ops.kernels.tiling.tiles import Tile

triton = pytest.importorskip("triton")

HERE = Path(__file__).parent
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2, "float16": 2e-3}
SUMS = ("aggregate", "scores", "spread")
LEAST = {"attention": 24}  # comparisons
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("name", [*SUMS, "attention"])
def test_values_through_the_interpreter(name: str) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "interpreted.py"), name]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    errors = json.loads(run.stdout)
    wrong = {
        case: error
        for case, error in errors.items()
        if math.isnan(error) or error > TOLERANCE[case.split()[1]]
    }
    assert not wrong
    assert len(errors) >= LEAST.get(name, 20)


@pytest.mark.parametrize("border", ["zero", "inside", "reflect"])
@pytest.mark.parametrize("stride", [1, 2])
def test_reach_turns_every_tap_round(border: str, stride: int) -> None:
    length, kernel, dilation = 13, 5, 2
    table = reach(length, kernel, dilation, border, stride, torch.device("cpu"))
    pairs = {(int(entry), row) for row, entries in enumerate(table) for entry in entries if entry >= 0}
    taps = reference.axis_taps(length, kernel, dilation, border, stride)
    at = zip(taps.position.flatten().tolist(), taps.valid.flatten().tolist(), strict=True)
    assert pairs == {(pair, position) for pair, (position, valid) in enumerate(at) if valid}


@pytest.mark.parametrize("shape", aot.shapes(), ids=lambda shape: shape.name)
@pytest.mark.parametrize("itemsize", [2, 4])
def test_tiles_fit_a_program(shape: aot.Shape, itemsize: int) -> None:
    head_width = shape.channels // shape.heads
    tile = Tile.of(shape.size, shape.size, shape.kernel, shape.heads, head_width, itemsize)
    assert tile.rows * tile.columns * tile.heads * tile.channels <= 4096
    assert 1 <= tile.warps <= 8
    matrix = MatrixTile.of(1, shape.size, shape.size, shape.kernel, 1, shape.heads, head_width)
    assert matrix.span >= 8 + shape.kernel - 1


def test_the_golden_file_has_every_compiled_kernel() -> None:
    _, committed = aot.golden()
    assert set(committed) == set(aot.names())
    assert not [name for name, used in committed.items() if used.spills]


COMPILED = {
    90: ["Swin-T stage 2 K=7", "Swin-T stage 3 inside", "RedNet stage 2 strided", "DDF-ResNet stage 4"],
    80: ["Swin-T stage 2 K=3"],
    100: ["I-D-DW-T stage 1"],
}


@pytest.mark.parametrize("capability", COMPILED)
def test_machine_code_spills_nothing_and_needs_what_it_did(capability: int) -> None:
    shapes = [shape for shape in aot.shapes() if shape.name in COMPILED[capability]]
    assert len(shapes) == len(COMPILED[capability])
    found = aot.resources(shapes, capabilities=[capability])
    assert not [name for name, used in found.items() if used.spills]
    version, committed = aot.golden()
    if version == triton.__version__:  # another compiler allots registers otherwise
        assert found == {name: committed[name] for name in found}


@gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("border", ["zero", "inside", "reflect"])
@pytest.mark.parametrize("heads, head_width", [(3, 32), (2, 24), (20, 1), (1, 200), (4, 16), (5, 3)])
@pytest.mark.parametrize("kernel, dilation, stride", [(3, 1, 1), (7, 1, 1), (5, 2, 1), (7, 1, 2), (13, 1, 1)])
def test_sums_on_a_gpu(
    dtype: str, border: str, heads: int, head_width: int, kernel: int, dilation: int, stride: int
) -> None:
    from ablate.ops.kernels.sums import cuda as sums

    torch.manual_seed(0)
    height, width, channels = 27, 30, heads * head_width
    rows, columns = -(-height // stride), -(-width // stride)
    kind = getattr(torch, dtype)
    values = torch.randn(2, height, width, channels, dtype=kind)
    outputs = torch.randn(2, rows, columns, channels, dtype=kind)
    filters = torch.randn(2, rows, columns, heads, kernel**2, dtype=kind)
    sliding = (kernel, dilation, border, stride)
    calls = {
        "aggregate": ((values, filters), (None, None), sliding),
        "scores": ((outputs, values), (None,), (heads, *sliding)),
        "spread": ((outputs, filters), (None, None), (height, width, *sliding)),
    }
    for name, (operands, static, others) in calls.items():
        truth = getattr(reference, name)(*(x.double() for x in operands), *static, *others)
        there = [*(x.cuda() for x in operands), *others]
        got = getattr(sums, name)(*there)
        error = float((got.cpu().double() - truth).abs().max() / truth.abs().max())
        assert error < TOLERANCE[dtype], name
        assert torch.equal(got, getattr(sums, name)(*there)), f"{name} gives other bits when repeated"


@gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("border", ["zero", "mask", "inside"])
@pytest.mark.parametrize("heads, head_width", [(3, 32), (2, 24), (4, 16)])
@pytest.mark.parametrize("kernel, dilation", [(3, 1), (7, 1), (5, 2), (13, 1)])
def test_attention_on_a_gpu(
    dtype: str, border: str, heads: int, head_width: int, kernel: int, dilation: int
) -> None:
    from tests.kernels.dense import attend

    from ablate.ops.kernels.attention.cuda import attention, attention_backward

    torch.manual_seed(0)
    kind, scale = getattr(torch, dtype), head_width**-0.5
    query, key, value, grad = (torch.randn(2, 27, 30, heads * head_width, dtype=kind) for _ in range(4))
    bias = torch.randn(heads, offsets_per_axis(kernel, border) ** 2)
    exact = [operand.double().requires_grad_() for operand in (query, key, value, bias)]
    truth, _ = attend(*exact, heads, kernel, dilation, border, scale)
    truth.backward(grad.double())
    operands = [operand.cuda() for operand in (query, key, value, bias)]
    sliding = (heads, kernel, dilation, border, scale)
    out, logsumexp = attention(*operands, *sliding)
    found = attention_backward(grad.cuda(), *operands, out, logsumexp, *sliding)
    again = attention_backward(grad.cuda(), *operands, out, logsumexp, *sliding)
    tolerance = TOLERANCE[dtype]
    for got, expected in zip((out, *found), (truth, *(o.grad for o in exact)), strict=True):
        assert float((got.cpu().double() - expected).abs().max() / expected.abs().max()) < tolerance
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))
