"""The Triton kernels without a GPU: values through the interpreter, and the machine code that they become."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from ablate.bench import aot
from ablate.kernels._triton.matrix import MatrixTile
from ablate.kernels._triton.reach import reach
from ablate.kernels._triton.tiles import Tile
from ablate.kernels.geometry import Neighborhood, axis_taps

triton = pytest.importorskip("triton")

HERE = Path(__file__).parent
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2, "float16": 2e-3}
COMPARISONS = {
    ("aggregate", "aggregate_transpose"): 50,
    ("scores", "static_grad"): 45,
    ("attention", "selfcheck"): 46,
    ("slide_attention",): 49,
}


@pytest.mark.parametrize("names", COMPARISONS)
def test_values_through_the_interpreter(names: tuple[str, ...]) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "interpreted.py"), *names]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert not [one for one in found if not one[-1] <= TOLERANCE[one[2]]]
    assert len(found) >= COMPARISONS[names]


@pytest.mark.parametrize("border", ["zero", "inside", "reflect"])
@pytest.mark.parametrize("stride", [1, 2])
def test_reach_turns_every_tap_round(border: str, stride: int) -> None:
    length, kernel, dilation = 13, 5, 2
    table = reach(length, Neighborhood(kernel, dilation, border, stride), torch.device("cpu"))
    pairs = {(int(entry), row) for row, entries in enumerate(table) for entry in entries if entry >= 0}
    taps = axis_taps(length, Neighborhood(kernel, dilation, border, stride))
    at = zip(taps.position.flatten().tolist(), taps.valid.flatten().tolist(), strict=True)
    assert pairs == {(pair, position) for pair, (position, valid) in enumerate(at) if valid}


@pytest.mark.parametrize("itemsize", [2, 4])
def test_tiles_fit_a_program(itemsize: int) -> None:
    for shape in aot.shapes():
        head_width = shape.channels // shape.heads
        tile = Tile.of(shape.size, shape.size, shape.kernel, shape.heads, head_width, itemsize)
        assert tile.rows * tile.columns * tile.heads * tile.channels <= 4096
        assert 1 <= tile.warps <= 8
        matrix = MatrixTile.of(1, shape.size, shape.size, shape.kernel, 1, shape.heads, head_width)
        assert matrix.span >= 8 + shape.kernel - 1


def test_every_supported_triton_compiles_every_kernel_without_spills() -> None:
    """The committed figures are of the code as it is, from the oldest Triton allowed to the newest."""
    project = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text())["project"]
    oldest = next(
        re.fullmatch(r"triton>=([\d.]+);.*", line) for line in project["dependencies"] if "triton" in line
    )
    files = {path.stem: aot.read_golden(path) for path in (HERE / "aot").glob("*.json")}
    assert f"{oldest[1]}.0" in files and triton.__version__ in files
    names, code = set(aot.names()), aot.code_digest()
    for version, committed in files.items():
        assert committed.code == code, f"the kernels are others than those of {version}.json: run `make aot`"
        assert set(committed.kernels) == names
        assert not [name for name, used in committed.kernels.items() if used.spills]


COMPILED = {
    90: [
        "Slide-Swin-T stage 1 K=3",
        "Swin-T stage 2 K=7",
        "ELSA-Swin-T stage 3 inside",
        "RedNet stage 2 strided",
        "DDF-ResNet stage 4",
    ],
    80: ["Swin-T stage 2 K=3"],
    100: ["I-D-DW-T stage 1"],
}


@pytest.mark.parametrize("capability", COMPILED)
def test_machine_code_spills_nothing_and_needs_what_it_did(capability: int) -> None:
    shapes = [shape for shape in aot.shapes() if shape.name in COMPILED[capability]]
    assert len(shapes) == len(COMPILED[capability])
    found = aot.resources(shapes, capabilities=[capability])
    assert not [name for name, used in found.items() if used.spills]
    committed = aot.read_golden(HERE / "aot" / f"{triton.__version__}.json").kernels
    assert found == {name: committed[name] for name in found}
