"""Run the Triton kernels on the CPU and print their largest errors against the float64 reference.

A script of its own, `python interpreted.py aggregate`: Triton's interpreter has to be chosen before
Triton is imported. It multiplies matrices of bfloat16 as if their bits were integers (Triton 3.8,
`InterpreterBuilder.create_dot`): the matrix form is tried in float32 and float16.
"""

from __future__ import annotations

import json
import os
import sys
from typing import NamedTuple

os.environ["TRITON_INTERPRET"] = "1"

import torch
from dense import attend  # beside this script
from torch import Tensor

from ablate.ops.kernels.attention import cuda as attention
from ablate.ops.kernels.attention.cuda import bias as attention_bias
from ablate.ops.kernels.geometry import offsets_per_axis, strided
from ablate.ops.kernels.sums import reference
from ablate.ops.kernels.sums.cuda import (
    aggregate_matrix,
    aggregate_taps,
    scores_matrix,
    scores_taps,
    spread_matrix,
    spread_taps,
)
from ablate.ops.kernels.tiling.launch import Launch


class Case(NamedTuple):
    """A batch of maps and a neighbourhood; dtypes of the taps form and, at stride 1, the matrix form."""

    batch: int
    height: int
    width: int
    heads: int
    head_width: int
    kernel: int
    dilation: int = 1
    border: str = "zero"
    stride: int = 1
    taps: str = "float32"
    matrix: str = ""


CASES = [
    Case(2, 7, 9, 3, 32, 7, matrix="float32"),  # Swin's heads: one in a program
    Case(1, 5, 6, 2, 3, 3, 2, "mask", 2),  # heads whose width is no power of two, dilated and strided
    Case(1, 9, 11, 2, 16, 3, 2, "inside", taps="bfloat16", matrix="float16"),
    Case(2, 4, 3, 20, 1, 7),  # as many heads as channels; larger than the map
    Case(1, 4, 5, 1, 136, 3, taps="bfloat16", matrix="float32"),  # a head wider than a program
    Case(1, 15, 13, 2, 8, 5, 1, "inside", 3, taps="bfloat16"),
    Case(1, 9, 8, 5, 6, 5, 1, "reflect", 2),
    Case(1, 5, 19, 1, 4, 13, matrix="float16"),
    Case(1, 16, 13, 1, 4, 13, 1, "inside", matrix="float32"),  # up to 16 readers along an axis
    Case(1, 3, 21, 1, 4, 17),  # more taps in a row than a program holds
    Case(1, 6, 5, 1, 5, 1, 1, "zero", 2),
    Case(1, 19, 7, 1, 12, 7, 2, "mask", taps="float16", matrix="float32"),
    Case(1, 10, 29, 1, 5, 5, 2, "inside", matrix="float32"),  # classes of two lengths, two tiles of each
]


def launches(
    name: str, case: Case, values: Tensor, outputs: Tensor, filters: Tensor, matrix: bool
) -> tuple[Launch, Tensor]:
    """The call of one sum in one form."""
    sliding = (case.kernel, case.dilation, case.border)
    size = (case.height, case.width)
    if name == "aggregate":
        if matrix:
            return aggregate_matrix.launch_aggregate_matrix(values, filters, *sliding)
        return aggregate_taps.launch_aggregate_taps(values, filters, *sliding, case.stride)
    if name == "scores":
        if matrix:
            return scores_matrix.launch_scores_matrix(outputs, values, case.heads, *sliding)
        return scores_taps.launch_scores_taps(outputs, values, case.heads, *sliding, case.stride)
    if matrix:
        return spread_matrix.launch_spread_matrix(outputs, filters, *sliding)
    return spread_taps.launch_spread_taps(outputs, filters, *size, *sliding, case.stride)


def expected(name: str, case: Case, values: Tensor, outputs: Tensor, filters: Tensor) -> Tensor:
    """The sum in float64."""
    sliding = (case.kernel, case.dilation, case.border, case.stride)
    if name == "aggregate":
        return reference.aggregate(values.double(), filters.double(), None, None, *sliding)
    if name == "scores":
        return reference.scores(outputs.double(), values.double(), None, case.heads, *sliding)
    return reference.spread(outputs.double(), filters.double(), None, None, case.height, case.width, *sliding)


def guarded(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor between NaN: a kernel that reads beyond either end gives NaN."""
    beyond = torch.full((4096,), torch.nan, dtype=dtype)
    return torch.cat([beyond, tensor.flatten().to(dtype), beyond])[4096:-4096].view(tensor.shape)


@torch.no_grad()
def relative(got: Tensor, truth: Tensor) -> float:
    """The largest error relative to the largest entry; NaN where an entry was not written."""
    return float((got.double() - truth).abs().max() / truth.abs().max())


def error(name: str, case: Case, dtype: torch.dtype, matrix: bool) -> float:
    """The largest error of one sum in one form."""
    torch.manual_seed(0)
    channels = case.heads * case.head_width
    rows, columns = strided(case.height, case.stride), strided(case.width, case.stride)
    values = guarded(torch.randn(case.batch, case.height, case.width, channels), dtype)
    outputs = guarded(torch.randn(case.batch, rows, columns, channels), dtype)
    filters = guarded(torch.randn(case.batch, rows, columns, case.heads, case.kernel**2), dtype)
    launch, got = launches(name, case, values, outputs, filters, matrix)
    launch.run()
    return relative(got, expected(name, case, values, outputs, filters))


ATTENTION = [
    Case(1, 6, 9, 2, 16, 5, 1, "inside"),
    Case(2, 4, 9, 1, 20, 3, 1, "mask"),
    Case(1, 3, 4, 2, 8, 7, taps="float16"),  # larger than the map
    Case(1, 6, 7, 1, 8, 3, 2, "inside", taps="float16"),
]


def attention_errors(case: Case) -> dict[str, float]:
    """Largest errors of attention and of its four gradients."""
    torch.manual_seed(0)
    dtype, scale = getattr(torch, case.taps), case.head_width**-0.5
    size = (case.batch, case.height, case.width, case.heads * case.head_width)
    query, key, value, grad = (guarded(torch.randn(size), dtype) for _ in range(4))
    bias = guarded(torch.randn(case.heads, offsets_per_axis(case.kernel, case.border) ** 2), torch.float32)
    sliding = (case.heads, case.kernel, case.dilation, case.border, scale)
    out, logsumexp = attention.attention(query, key, value, bias, *sliding)
    found = attention.attention_backward(grad, query, key, value, bias, out, logsumexp, *sliding)
    exact = [operand.double().requires_grad_() for operand in (query, key, value, bias)]
    truth, sums = attend(*exact, *sliding)
    truth.backward(grad.double())
    got = {"out": (out, truth), "logsumexp": (logsumexp, sums)}
    for name, gradient, operand in zip(("query", "key", "value", "bias"), found, exact, strict=True):
        got[name] = (gradient, operand.grad)
    return {name: relative(*pair) for name, pair in got.items()}


def main(name: str) -> None:
    """Print {form dtype case: error} as JSON."""
    torch.use_deterministic_algorithms(True)  # fills what is empty with NaN
    torch.set_num_threads(1)
    errors = {}
    if name == "attention":
        attention_bias.PROGRAMS = 32  # each then adds up several tiles
        for case in ATTENTION:
            for what, found in attention_errors(case).items():
                errors[f"{what} {case.taps} {case}"] = found
        print(json.dumps(errors))
        return
    for case in CASES:
        for form, dtype in (("taps", case.taps), ("matrix", case.matrix)):
            if dtype:
                found = error(name, case, getattr(torch, dtype), form == "matrix")
                errors[f"{form} {dtype} {case}"] = found
    print(json.dumps(errors))


if __name__ == "__main__":
    main(sys.argv[1])
