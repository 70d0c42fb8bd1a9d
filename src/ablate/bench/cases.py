"""The kernels that are timed: each with its inputs, its unfold form and the library's nearest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ablate import kernels
from ablate.bench import library, unfold
from ablate.bench.settings import KERNEL, Stage

Shapes = dict[str, tuple[int, ...]]
TAPS = KERNEL**2


@dataclass(frozen=True)
class Case:
    """A kernel, its reference and what the library has; all take heads, K and their tensors."""

    shapes: Callable[[Stage, int], Shapes]
    fast: Callable[..., Tensor]
    unfold: Callable[..., Tensor]
    nearest_name: str
    nearest_shapes: Callable[[Stage, int], Shapes]
    nearest: Callable[..., Tensor]


def _maps(*names: str) -> Callable[[Stage, int], Shapes]:
    return lambda stage, batch: dict.fromkeys(names, (batch, stage.size, stage.size, stage.channels))


def _filters(stage: Stage, batch: int) -> Shapes:
    return _maps("values")(stage, batch) | {"filters": (batch, stage.size, stage.size, stage.heads, TAPS)}


def _ghost_filters(stage: Stage, batch: int) -> Shapes:
    return _filters(stage, batch) | dict.fromkeys(("multiply", "add"), (1, stage.channels, TAPS))


def _convolution(stage: Stage, batch: int) -> Shapes:
    return _maps("values")(stage, batch) | {"weight": (stage.channels, 1, KERNEL, KERNEL)}


def _attention(offsets: int) -> Callable[[Stage, int], Shapes]:
    maps = _maps("query", "key", "value")
    return lambda stage, batch: maps(stage, batch) | {"bias": (stage.heads, offsets)}


def _fast_aggregate(
    heads: int,
    kernel: int,
    values: Tensor,
    filters: Tensor,
    multiply: Tensor | None = None,
    add: Tensor | None = None,
) -> Tensor:
    return kernels.aggregate(values, filters, kernel=kernel, multiply=multiply, add=add)


def _fast_scores(heads: int, kernel: int, query: Tensor, key: Tensor) -> Tensor:
    return kernels.scores(query, key, heads, kernel=kernel)


def _fast_attention(
    heads: int, kernel: int, query: Tensor, key: Tensor, value: Tensor, bias: Tensor
) -> Tensor:
    return kernels.attention(query, key, value, bias, kernel=kernel)


_convolved = ("depthwise", _convolution, library.convolution)
CASES = {
    "aggregate": Case(_filters, _fast_aggregate, unfold.aggregate, *_convolved),
    "aggregate_ghost": Case(_ghost_filters, _fast_aggregate, unfold.ghost_aggregate, *_convolved),
    "scores": Case(
        _maps("query", "key"),
        _fast_scores,
        unfold.scores,
        "window products",
        _maps("query", "key"),
        library.window_scores,
    ),
    "attention": Case(
        _attention(TAPS),
        _fast_attention,
        unfold.attention,
        "window attention",
        _attention((2 * KERNEL - 1) ** 2),
        library.window_attention,
    ),
}
