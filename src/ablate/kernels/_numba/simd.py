"""Vectors of float32 as values of Numba functions, which LLVM keeps in registers.

Numba's loops over small arrays leave accumulators in memory; a vector type of our own does not. A
function learns the width at compile time from an argument's type: `lanes`, a tuple as long as a
vector is wide, whose values nobody reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

FLOAT, INDEX = ir.FloatType(), ir.IntType(32)
FOUR, SIXTEEN = (0,) * 4, (0,) * 16  # the `lanes` of vectors that are as wide everywhere


class Vector(types.Type):
    """`lanes` float32 values."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"Vector({lanes})")


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """One LLVM vector; where it is wider than a register, LLVM takes several."""

    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, _llvm(kind))


@cache
def widest() -> int:
    """Lanes of which the accumulators of four positions fit the registers of this machine."""
    return 32 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 16


def lanes_for(width: int) -> tuple[int, ...]:
    """The `lanes` argument for heads of `width` channels: the widest power of two that divides it."""
    return (0,) * min(width & -width, widest())


class Vectors(NamedTuple):
    """The vectors of a head: tuples whose lengths the compiler knows."""

    parts: Any  # vectors in a head
    lanes: Any  # of a vector


def vectors_for(width: int) -> Vectors:
    """Vectors of a head of `width` channels."""
    lanes = lanes_for(width)
    return Vectors((0,) * (width // len(lanes)), lanes)


class Place(NamedTuple):
    """A place in a flat array."""

    array: Any
    at: Any


@intrinsic
def number(typing: Any, known: Any) -> Any:
    """An integer, which the compiler knows if the argument is a tuple as long as it is large."""
    if isinstance(known, types.Integer):
        return types.intp(types.intp), lambda context, builder, signature, arguments: arguments[0]
    return types.intp(known), lambda context, *_: context.get_constant(types.intp, known.count)


@intrinsic
def load(typing: Any, array: Any, position: Any, lanes: Any) -> Any:
    """The vector at `position` of a flat array."""
    kind = Vector(lanes.count)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_address(context, builder, signature, arguments, kind), align=4)

    return kind(array, types.intp, lanes), generate


@intrinsic
def store(typing: Any, array: Any, position: Any, value: Any) -> Any:
    """Write a vector to `position` of a flat array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _address(context, builder, signature, arguments, value), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic
def prefetch(typing: Any, array: Any, position: Any) -> Any:
    """Ask for the cache line at `position` of a flat array, which may be beyond its end."""
    byte = ir.IntType(8).as_pointer()

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = context.make_array(signature.args[0])(context, builder, arguments[0])
        address = builder.bitcast(builder.gep(values.data, [arguments[1]]), byte)
        form = ir.FunctionType(ir.VoidType(), [byte, INDEX, INDEX, INDEX])
        function = cgutils.get_or_insert_function(builder.module, form, "llvm.prefetch.p0")
        builder.call(function, [address, *(ir.Constant(INDEX, x) for x in (0, 3, 1))])  # to read, into all
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@intrinsic
def zeros(typing: Any, lanes: Any) -> Any:
    """A vector of zeros."""
    kind = Vector(lanes.count)
    return kind(lanes), lambda *_: ir.Constant(_llvm(kind), None)


@intrinsic
def splat(typing: Any, value: Any, lanes: Any) -> Any:
    """A vector of one value."""
    kind = Vector(lanes.count)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _splat(builder, arguments[0], kind)

    return kind(types.float32, lanes), generate


@intrinsic
def filter_at(typing: Any, filters: Any, at: Any, multiply: Any, add: Any, place: Any, lanes: Any) -> Any:
    """filters[at] for all lanes, times the vector of `multiply` and plus that of `add` at `place`.

    Either of the two may be None, which costs nothing.
    """
    kind = Vector(lanes.count)
    arrays = (filters, types.intp, multiply, add, types.intp, lanes)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        found = _splat(builder, builder.load(builder.gep(array.data, [arguments[1]])), kind)
        return _filtered(context, builder, signature, arguments, found, kind)

    return kind(*arrays), generate


@intrinsic
def load_filtered(typing: Any, array: Any, at: Any, multiply: Any, add: Any, place: Any, lanes: Any) -> Any:
    """The vector at `at`, with the two as in `filter_at`."""
    kind = Vector(lanes.count)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found = builder.load(_address(context, builder, signature, arguments, kind), align=4)
        return _filtered(context, builder, signature, arguments, found, kind)

    return kind(array, types.intp, multiply, add, types.intp, lanes), generate


@intrinsic
def value_at(typing: Any, array: Any, position: Any) -> Any:
    """One value of a flat array; 0 where there is None, which costs nothing."""
    if isinstance(array, types.NoneType):
        return types.float32(array, types.intp), lambda *_: ir.Constant(FLOAT, 0)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.load(builder.gep(values.data, [arguments[1]]))

    return types.float32(array, types.intp), generate


@intrinsic
def lane(typing: Any, x: Any, which: Any) -> Any:
    """One lane of a vector, as float32; `which` is a tuple as long as its number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.extract_element(arguments[0], ir.Constant(INDEX, signature.args[1].count))

    return types.float32(x, which), generate


@intrinsic
def fma(typing: Any, x: Any, y: Any, z: Any) -> Any:
    """x · y + z."""
    return x(x, x, x), _call("llvm.fma", x, 3)


@intrinsic
def total(typing: Any, x: Any) -> Any:
    """The sum over the lanes, as float32."""
    vector = _llvm(x)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        form = ir.FunctionType(FLOAT, [FLOAT, vector])
        name = f"llvm.vector.reduce.fadd.v{x.lanes}f32"
        function = cgutils.get_or_insert_function(builder.module, form, name)
        return builder.call(function, [ir.Constant(FLOAT, -0.0), arguments[0]], fastmath=["reassoc"])

    return types.float32(x), generate


@intrinsic
def times(typing: Any, x: Any, y: Any) -> Any:
    """x · y."""
    return x(x, x), lambda context, builder, signature, arguments: builder.fmul(*arguments)


@intrinsic
def plus(typing: Any, x: Any, y: Any) -> Any:
    """x + y."""
    return x(x, x), lambda context, builder, signature, arguments: builder.fadd(*arguments)


@intrinsic
def minus(typing: Any, x: Any, y: Any) -> Any:
    """x − y."""
    return x(x, x), lambda context, builder, signature, arguments: builder.fsub(*arguments)


@intrinsic
def larger(typing: Any, x: Any, y: Any) -> Any:
    """The larger of both, lane by lane."""
    return x(x, x), _call("llvm.maxnum", x, 2)


@intrinsic
def exponential(typing: Any, x: Any) -> Any:
    """e^x to one unit in the last place, from −87 to 88; 0 below."""
    vector, integers = _llvm(x), ir.VectorType(INDEX, x.lanes)

    def constant(value: float) -> ir.Constant:
        return ir.Constant(vector, [value] * x.lanes)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def call(name: str, *values: Any) -> Any:
            return _call(name, x, len(values))(context, builder, None, values)

        inside = call("llvm.minnum", call("llvm.maxnum", arguments[0], constant(-87.0)), constant(88.0))
        power = call("llvm.rint", builder.fmul(inside, constant(1.4426950408889634)))  # log₂ e
        rest = call("llvm.fma", power, constant(-0.693359375), inside)  # ln 2 in two parts
        rest = call("llvm.fma", power, constant(2.12194440e-4), rest)
        series = constant(1 / 5040)
        for factorial in (720, 120, 24, 6, 2, 1, 1):
            series = call("llvm.fma", series, rest, constant(1 / factorial))
        exponent = builder.add(builder.fptosi(power, integers), ir.Constant(integers, [127] * x.lanes))
        scale = builder.bitcast(builder.shl(exponent, ir.Constant(integers, [23] * x.lanes)), vector)
        small = builder.fcmp_ordered("<", arguments[0], constant(-87.0))
        return builder.select(small, ir.Constant(vector, None), builder.fmul(series, scale))

    return x(x), generate


@intrinsic
def totals(typing: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """The sums over the lanes of four vectors, as one vector of four."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        parts, width = list(arguments), a.lanes
        if width < 4:
            parts, width = [_widened(builder, part, width) for part in parts], 4
        while width > 16:
            parts, width = [_folded(builder, part, 1) for part in parts], width // 2
        while len(parts) > 1:  # two vectors become one, the first in its lower half, until four are in one
            parts = [_folded(builder, x, len(parts), y) for x, y in zip(parts[::2], parts[1::2], strict=True)]
        return _within_groups(builder, parts[0])

    return Vector(4)(a, a, a, a), generate


@intrinsic
def folded_sum(typing: Any, x: Any) -> Any:
    """16 lanes as four times four → their sum, four lanes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _folded(builder, _folded(builder, arguments[0], 1), 1)

    return Vector(4)(x), generate


@intrinsic
def folded_maximum(typing: Any, x: Any) -> Any:
    """16 lanes as four times four → the largest of each place, four lanes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = arguments[0]
        for half in (8, 4):
            low, high = _lanes(builder, value, range(half)), _lanes(builder, value, range(half, 2 * half))
            value = _call("llvm.maxnum", Vector(half), 2)(context, builder, None, (low, high))
        return value

    return Vector(4)(x), generate


@intrinsic
def four_times(typing: Any, x: Any) -> Any:
    """Four lanes, four times."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _lanes(builder, arguments[0], [0, 1, 2, 3] * 4)

    return Vector(16)(x), generate


def _filtered(context: Any, builder: Any, signature: Any, arguments: Any, found: Any, kind: Vector) -> Any:
    """Found, times the vector of argument 2 and plus that of argument 3, at argument 4; each may be None."""
    factors: list[Any] = []
    for number in (2, 3):
        if isinstance(signature.args[number], types.NoneType):
            factors.append(None)
            continue
        array = context.make_array(signature.args[number])(context, builder, arguments[number])
        address = builder.gep(array.data, [arguments[4]])
        factors.append(builder.load(builder.bitcast(address, _llvm(kind).as_pointer()), align=4))
    if None not in factors:
        return _call("llvm.fma", kind, 3)(context, builder, None, (found, *factors))
    if factors[0] is not None:
        return builder.fmul(found, factors[0])
    return found if factors[1] is None else builder.fadd(found, factors[1])


def _splat(builder: Any, value: Any, kind: Vector) -> Any:
    undefined = ir.Constant(_llvm(kind), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(INDEX, 0))
    everywhere = ir.Constant(ir.VectorType(INDEX, kind.lanes), [0] * kind.lanes)
    return builder.shuffle_vector(first, undefined, everywhere)


def _lanes(builder: Any, x: Any, order: Sequence[int], y: Any = None) -> Any:
    """The lanes of x, followed by those of y, in another order."""
    index = ir.Constant(ir.VectorType(INDEX, len(order)), list(order))
    return builder.shuffle_vector(x, x if y is None else y, index)


def _folded(builder: Any, x: Any, vectors: int, y: Any = None) -> Any:
    """Each group of lanes halved by adding its upper half to its lower one.

    One vector alone becomes half as wide. Of two, the groups of the second follow those of the first;
    `vectors` is how many there were, and with that how many groups each of the two holds.
    """
    width = x.type.count
    groups = 1 if y is None else 4 // vectors
    size = width // groups
    low = [group * size + lane for group in range(groups) for lane in range(size // 2)]
    high = [lane + size // 2 for lane in low]
    if y is not None:
        low, high = low + [width + lane for lane in low], high + [width + lane for lane in high]
    return builder.fadd(_lanes(builder, x, low, y), _lanes(builder, x, high, y))


def _within_groups(builder: Any, x: Any) -> Any:
    """Four groups of lanes → four sums."""
    while x.type.count > 4:
        size = x.type.count // 4
        low = [group * size + lane for group in range(4) for lane in range(size // 2)]
        high = [lane + size // 2 for lane in low]
        x = builder.fadd(_lanes(builder, x, low), _lanes(builder, x, high))
    return x


def _widened(builder: Any, x: Any, width: int) -> Any:
    """One or two lanes → four, filled up with zeros."""
    return _lanes(builder, x, [*range(width), *[width] * (4 - width)], ir.Constant(x.type, None))


def _llvm(kind: Vector) -> ir.VectorType:
    return ir.VectorType(FLOAT, kind.lanes)


def _address(context: Any, builder: Any, signature: Any, arguments: Any, kind: Vector) -> Any:
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.bitcast(builder.gep(array.data, [arguments[1]]), _llvm(kind).as_pointer())


def _call(name: str, kind: Vector, arguments: int) -> Callable[..., Any]:
    vector = _llvm(kind)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        form = ir.FunctionType(vector, [vector] * arguments)
        function = cgutils.get_or_insert_function(builder.module, form, f"{name}.v{kind.lanes}f32")
        return builder.call(function, values)

    return generate
