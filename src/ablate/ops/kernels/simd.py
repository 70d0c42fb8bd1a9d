"""Vectors of float32 as values of Numba functions, which LLVM keeps in registers.

Numba's loops over small arrays leave accumulators in memory; a vector type of our own does not. A
function learns the width at compile time from an argument's type: `lanes`, a tuple as long as a
vector is wide, whose values nobody reads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

FLOAT, INDEX = ir.FloatType(), ir.IntType(32)


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
def zeros(typing: Any, lanes: Any) -> Any:
    """A vector of zeros."""
    kind = Vector(lanes.count)
    return kind(lanes), lambda *_: ir.Constant(_llvm(kind), None)


@intrinsic
def splat(typing: Any, value: Any, lanes: Any) -> Any:
    """A vector of one value."""
    kind = Vector(lanes.count)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        undefined = ir.Constant(_llvm(kind), ir.Undefined)
        first = builder.insert_element(undefined, arguments[0], ir.Constant(INDEX, 0))
        everywhere = ir.Constant(ir.VectorType(INDEX, kind.lanes), [0] * kind.lanes)
        return builder.shuffle_vector(first, undefined, everywhere)

    return kind(types.float32, lanes), generate


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
