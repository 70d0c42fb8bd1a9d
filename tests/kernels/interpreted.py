"""Run the Triton kernels on the CPU and print their largest errors against the float64 reference.

A script of its own, `python interpreted.py aggregate`: Triton's interpreter has to be chosen before
Triton is imported. It multiplies matrices of bfloat16 as if their bits were integers (Triton 3.8,
`InterpreterBuilder.create_dot`): the matrix form is tried in float32 and float16.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

os.environ["TRITON_INTERPRET"] = "1"

import torch
from torch import Tensor
from triton.runtime.interpreter import InterpreterOptions, interpreter_builder

from ablate import kernels
from ablate.kernels.geometry import Neighborhood, offsets_per_axis, strided
from ablate.kernels.neighborhood_attention import reference as attention_reference
from ablate.kernels.neighborhood_attention import triton as attention
from ablate.kernels.neighborhood_attention.inputs import Inputs
from ablate.kernels.neighborhood_attention.triton import bias as attention_bias
from ablate.kernels.neighborhood_sums import reference
from ablate.kernels.neighborhood_sums import triton as sums
from ablate.kernels.neighborhood_sums.triton import (
    aggregate_matrix,
    aggregate_taps,
    aggregate_transpose_matrix,
    aggregate_transpose_taps,
    scores_matrix,
    scores_taps,
    static_grad_taps,
)
from ablate.kernels.selfcheck import Checked, cases, verdicts
from ablate.kernels.slide_attention import reference as slide_reference
from ablate.kernels.slide_attention import triton as slide
from ablate.kernels.slide_attention.inputs import Inputs as SlideInputs
from ablate.kernels.slide_attention.triton import filters as slide_filters


class Case(NamedTuple):
    """A batch of maps and a neighborhood; dtypes of the taps form and, at stride 1, the matrix form."""

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
    multiply: int = 0  # images that have static factors of their own; 0 without factors
    add: int = 0
    bias: int = 0  # whether scores have one
    axial: bool = False  # whether queries have terms for row and column offsets

    @property
    def neighborhood(self) -> Neighborhood:
        return Neighborhood(self.kernel, self.dilation, self.border, self.stride)


CASES = [
    Case(1, 3, 9, 3, 32, 7, matrix="float32"),  # Swin's heads: one in a program
    Case(1, 5, 6, 2, 3, 3, 2, "mask", 2, bias=1),  # heads whose width is no power of two, dilated and strided
    Case(1, 9, 11, 2, 16, 3, 2, "inside", taps="bfloat16", matrix="float16", bias=1),
    Case(2, 4, 3, 20, 1, 7, bias=1),  # as many heads as channels; larger than the map
    Case(1, 4, 5, 1, 136, 3, taps="bfloat16", matrix="float32"),  # a head wider than a program
    Case(1, 11, 7, 2, 8, 5, 1, "inside", 3, taps="bfloat16", bias=1),
    Case(1, 9, 8, 5, 6, 5, 1, "reflect", 2, bias=1),
    Case(1, 2, 11, 1, 4, 13, matrix="float16"),
    Case(1, 9, 17, 1, 4, 9, 1, "inside", matrix="float32"),  # up to 13 readers along an axis
    Case(1, 1, 9, 1, 4, 17, bias=1),  # more taps in a row than a program holds
    Case(1, 6, 5, 1, 5, 1, 1, "zero", 2),
    Case(1, 17, 5, 1, 12, 7, 2, "mask", taps="float16", matrix="float32", bias=1),
    Case(1, 10, 21, 1, 5, 5, 2, "inside", matrix="float32", bias=1),  # classes of two lengths, two tiles
    Case(2, 3, 5, 2, 32, 5, multiply=1, add=1, bias=1),  # ELSA
    Case(2, 4, 5, 1, 136, 3, 1, "zero", 2, taps="bfloat16", multiply=2),  # DDF
    Case(2, 9, 7, 2, 6, 3, 2, "inside", 2, multiply=1, add=2, bias=1),
    Case(2, 5, 6, 1, 6, 5, 1, "inside", taps="bfloat16", multiply=2, add=1),
    Case(2, 7, 6, 1, 20, 5, 1, "reflect", taps="float16", multiply=1, add=1),
    Case(1, 5, 6, 20, 1, 3, 2, "mask", taps="float16", add=1, bias=1),
]


class Operands(NamedTuple):
    """Of all four sums."""

    values: Tensor
    outputs: Tensor
    filters: Tensor
    multiply: Tensor | None
    add: Tensor | None
    bias: Tensor | None


def operands(case: Case, dtype: torch.dtype) -> Operands:
    torch.manual_seed(0)
    channels, offsets = case.heads * case.head_width, offsets_per_axis(case.kernel, case.border) ** 2
    rows, columns = strided(case.height, case.stride), strided(case.width, case.stride)
    shapes = (
        (case.batch, case.height, case.width, channels),
        (case.batch, rows, columns, channels),
        (case.batch, rows, columns, case.heads, case.kernel**2),
        (case.multiply, channels, offsets),
        (case.add, channels, offsets),
        (case.bias * case.heads, offsets),
    )
    return Operands(*(guarded(torch.randn(shape), dtype) if shape[0] else None for shape in shapes))


def guarded(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor between NaN: a kernel that reads beyond either end gives NaN."""
    beyond = torch.full((4096,), torch.nan, dtype=dtype)
    return torch.cat([beyond, tensor.flatten().to(dtype), beyond])[4096:-4096].view(tensor.shape)


@torch.no_grad()
def relative(got: Tensor, truth: Tensor) -> float:
    """The largest error relative to the largest entry; NaN where an entry was not written."""
    return float((got.double() - truth).abs().max() / truth.abs().max())


def arguments(name: str, case: Case, given: Operands) -> tuple[Any, ...]:
    """Of one sum."""
    values, outputs, filters, multiply, add, bias = given
    sliding = case.neighborhood
    return {
        "aggregate": (values, filters, multiply, add, sliding),
        "aggregate_transpose": (outputs, filters, multiply, add, case.height, case.width, sliding),
        "scores": (outputs, values, multiply, add, bias, case.heads, sliding),
        "static_grad": (outputs, values, filters, sliding),
    }[name]


def in_taps(name: str, case: Case, given: Operands) -> Tensor:
    """The sum, whatever form would be chosen for it."""
    launch, out = {
        "aggregate": aggregate_taps.launch_aggregate_taps,
        "aggregate_transpose": aggregate_transpose_taps.launch_aggregate_transpose_taps,
        "scores": scores_taps.launch_scores_taps,
    }[name](*arguments(name, case, given))
    launch.run()
    return out


def as_matrix(name: str, case: Case, given: Operands) -> Tensor:
    sliding = case.neighborhood
    if name == "aggregate":
        launch, out = aggregate_matrix.launch_aggregate_matrix(given.values, given.filters, sliding)
    elif name == "aggregate_transpose":
        launch, out = aggregate_transpose_matrix.launch_aggregate_transpose_matrix(
            given.outputs, given.filters, sliding
        )
    else:
        terms = given.outputs, given.values, given.bias, case.heads
        launch, out = scores_matrix.launch_scores_matrix(*terms, sliding)
    launch.run()
    return out


def sum_errors(name: str) -> Iterator[tuple[str, str, Case, float]]:
    """What, in which dtype, of which case, and its error."""
    for case in CASES:
        for form, dtype in (("taps", case.taps), ("matrix", case.matrix)):
            if not dtype:
                continue
            given = operands(case, getattr(torch, dtype))
            got = (in_taps if form == "taps" else as_matrix)(name, case, given)
            exact = Operands(*(x if x is None else x.double() for x in given))
            factors = " with factors" if case.multiply or case.add else ""
            truth = getattr(reference, name)(*arguments(name, case, exact))
            yield f"{form}{factors}", dtype, case, relative(got, truth)


def static_grad_errors() -> Iterator[tuple[str, str, Case, float]]:
    static_grad_taps.PROGRAMS = 32  # each then adds up several tiles, or shares an image with others
    for case in (case for case in CASES if case.kernel < 9 and not case.matrix):
        given = operands(case, getattr(torch, case.taps))
        exact = Operands(*(x if x is None else x.double() for x in given))
        got = sums.static_grad.kernel(*arguments("static_grad", case, given))
        truth = reference.static_grad(*arguments("static_grad", case, exact))
        for what, *pair in zip(("multiply", "add"), got, truth, strict=True):
            yield what, case.taps, case, relative(*pair)


ATTENTION = [
    Case(1, 5, 9, 1, 16, 5, 1, "inside", axial=True),
    Case(2, 2, 9, 1, 20, 3, 1, "mask"),
    Case(1, 3, 4, 2, 8, 3, 2, axial=True),
    Case(1, 3, 4, 2, 8, 7, taps="float16", axial=True),  # larger than the map
    Case(1, 4, 3, 2, 8, 3, 1, "mask", taps="float16", axial=True),
    Case(1, 6, 7, 1, 8, 3, 2, "inside", taps="float16"),
    Case(1, 2, 9, 2, 8, 3),  # without axial the queries' gradient needs no rows outside the map
]


def attention_errors() -> Iterator[tuple[str, str, Case, float]]:
    """Of attention and of its gradients."""
    attention_bias.PROGRAMS = 32  # each then adds up several tiles
    for case in ATTENTION:
        torch.manual_seed(0)
        dtype = getattr(torch, case.taps)
        size = (case.batch, case.height, case.width, case.heads * case.head_width)
        query, key, value, grad = (guarded(torch.randn(size) * 0.5, dtype) for _ in range(4))
        offsets = offsets_per_axis(case.kernel, case.border)
        given = [query, key, value, guarded(torch.randn(case.heads, offsets**2), torch.float32)]
        if case.axial:
            given.append(guarded(torch.randn(*size[:3], case.heads, 2 * offsets), dtype))
        none = [] if case.axial else [None]
        inputs, neighborhood = Inputs(*given, *none), case.neighborhood
        out, rows = attention.attention.kernel(inputs, neighborhood)
        found = attention.backward.kernel(grad, inputs, out, rows, neighborhood)
        exact = [operand.double().requires_grad_() for operand in given]
        named = {"kernel": case.kernel, "dilation": case.dilation, "border": case.border}
        truth = kernels.attention(*exact[:4], axial=exact[4] if case.axial else None, **named)
        truth.backward(grad.double())
        apart = (operand.detach() for operand in exact)
        _, true_rows = attention_reference.attention(Inputs(*apart, *none), neighborhood)
        got = {"out": (out, truth), "rows": (rows, true_rows)}
        names = ("query", "key", "value", "bias", "axial")[: len(exact)]
        for name, gradient, operand in zip(names, found, exact, strict=False):
            got[f"gradient of {name}"] = (gradient, operand.grad)
        assert len(found) == 5
        assert case.axial or not found[4].numel()
        for what, pair in got.items():
            yield what, case.taps, case, relative(*pair)


MIXED = [
    Case(3, 7, 9, 2, 8, 3),  # tiles that span images, of which some are differentiated after the others
    Case(1, 5, 13, 1, 20, 3, taps="float16"),
    Case(2, 3, 1, 1, 32, 5),  # larger than the map
    Case(3, 9, 5, 3, 32, 3, taps="float16"),
    Case(1, 11, 6, 2, 8, 5, taps="float16"),
    Case(3, 5, 7, 1, 20, 1),
    Case(1, 3, 30, 1, 32, 3),
]


def slide_attention_errors() -> Iterator[tuple[str, str, Case, float]]:
    """Of attention over mixed neighbors and of its gradients."""
    slide_filters.PROGRAMS = 1  # each then adds up several tiles
    slide.MOST = 2 * 7 * 9 * 2 * 2 * 16  # two images of the first case
    for case in MIXED:
        torch.manual_seed(0)
        dtype, width, taps = getattr(torch, case.taps), case.head_width, case.kernel**2
        size = (case.batch, case.height, case.width, case.heads * width)
        query, key, value, grad = (guarded(torch.randn(size) * 0.5, dtype) for _ in range(4))
        shapes, precise = ((width, taps, taps), (width, taps), (case.heads, taps)), case.batch > 1
        static = (torch.randn(shape) / case.kernel for shape in shapes)
        given = [query, key, value, *(guarded(x, torch.float32 if precise else dtype) for x in static)]
        exact = [x.double() for x in given]
        inputs, kernel = SlideInputs(*given), case.kernel
        found = slide.attention.kernel(inputs, kernel), *slide.backward.kernel(grad, inputs, kernel)
        inputs = SlideInputs(*exact)
        truth = slide_reference.attention(inputs, kernel)
        truths = truth, *slide_reference.backward(grad.double(), inputs, kernel)
        names = "out", *(f"gradient of {name}" for name in ("query", "key", "value", "mix", "own", "table"))
        for what, got, true in zip(names, found, truths, strict=True):
            vanishes = case.kernel == 1 and what in (
                "gradient of query",
                "gradient of key",
                "gradient of table",
            )
            yield what, case.taps, case, float(got.abs().max()) if vanishes else relative(got, true)


def check_selfcheck() -> None:
    """Every kernel passes; one that is wrong, or fails, leaves its work to the reference."""
    cpu, single, half = torch.device("cpu"), torch.float32, torch.float16
    attention_bias.PROGRAMS = 32
    cases.HEIGHT, cases.WIDTH = 7, 9
    cases.CASES = (  # the interpreter is slow: two neighborhoods, and one of mixed neighbors
        cases.Case(5, 1, "zero", 1, 2, 16, multiply=1, add=1, axial=True),
        cases.Case(3, 2, "inside", 1, 2, 16, multiply=cases.IMAGES, add=1, axial=True),
    )
    for kernel in (sums.aggregate_transpose, sums.static_grad, attention.attention):
        assert kernel.failure(cpu, half) is None
    for kernel in (sums.aggregate, sums.scores, attention.backward):
        assert kernel.failure(cpu, single) is None
    cases.CASES = (cases.Case(3, 1, "zero", 1, 2, 16),)
    assert slide.attention.failure(cpu, half) is None
    assert slide.backward.failure(cpu, single) is None
    cases.CASES = (cases.Case(3, 2, "inside", 1, 2, 16, multiply=cases.IMAGES, add=1),)

    def wrong(*given: Any) -> Tensor:
        aggregate_taps.border_rule = lambda *_: "zero"  # `inside` is lost
        return sums.aggregate.kernel(*given)

    def failing(*_: Any) -> Tensor:
        raise RuntimeError("no such instruction")

    right = aggregate_taps.border_rule
    given = operands(CASES[0], single)
    truth = reference.aggregate(*arguments("aggregate", CASES[0], given))
    for kernel, said in (
        (wrong, "is off at kernel 3, dilation 2, border inside"),
        (failing, "no such instruction"),
    ):
        checked = Checked(kernel, reference.aggregate, sums.aggregate.arguments)
        verdicts._known[checked.module, cpu, single] = {checked.name: checked.failure(cpu, single)}
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            for _ in range(2):
                assert torch.equal(checked(*arguments("aggregate", CASES[0], given)), truth)
        [warning] = warned
        assert said in str(warning.message)
        assert "infra.kernels=reference" in str(warning.message)
    aggregate_taps.border_rule = right


def main(names: list[str]) -> None:
    """Print [kernel, what, dtype, case, error] of each comparison as JSON."""
    torch.use_deterministic_algorithms(True)  # fills what is empty with NaN
    torch.set_num_threads(1)
    interpreter_builder.options = InterpreterOptions(sanitize_overflow=False)  # it takes half of the time
    own = {
        "static_grad": static_grad_errors,
        "attention": attention_errors,
        "slide_attention": slide_attention_errors,
    }
    found = []
    for name in names:
        if name == "selfcheck":
            check_selfcheck()
        else:
            found += [(name, *error) for error in (own[name]() if name in own else sum_errors(name))]
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
