"""Neighborhoods, windows, sums and batch norm as they are defined, position by position.

Slow and plain on purpose: what the operators are compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

Position = tuple[int, int]
Tap = tuple[Position | None, int]  # a neighbor, None outside the map; its entry in a table of offsets
Taps = dict[Position, list[Tap]]  # of every position with an output, rows first


def along(
    position: int, length: int, kernel: int, dilation: int, border: str
) -> list[tuple[int | None, int]]:
    """Neighbors along one axis, each with its row in a table of offsets."""
    radius = kernel // 2
    if border == "inside":
        alike = [place for place in range(length) if place % dilation == position % dilation]
        own = alike.index(position)
        start = min(max(own - radius, 0), len(alike) - kernel)
        return [(alike[start + tap], start + tap - own + kernel - 1) for tap in range(kernel)]
    found = [position + dilation * (tap - radius) for tap in range(kernel)]
    return [(place if 0 <= place < length else None, tap) for tap, place in enumerate(found)]


def sliding(
    height: int, width: int, kernel: int, *, dilation: int = 1, border: str = "zero", stride: int = 1
) -> Taps:
    """The taps that count: all K², or under border `mask` those inside the map."""
    offsets = 2 * kernel - 1 if border == "inside" else kernel
    taps: Taps = {}
    for y in range(0, height, stride):
        for x in range(0, width, stride):
            found = [
                (None if row is None or column is None else (row, column), at_row * offsets + at_column)
                for row, at_row in along(y, height, kernel, dilation, border)
                for column, at_column in along(x, width, kernel, dilation, border)
            ]
            taps[y, x] = [tap for tap in found if tap[0] is not None or border != "mask"]
    return taps


def all_pairs(height: int, width: int, groups: Iterable[Sequence[Position]]) -> Taps:
    """Positions that meet all others of their group, by offset in a (2·height − 1)(2·width − 1) table."""
    taps = {
        (y, x): [
            ((row, column), (row - y + height - 1) * (2 * width - 1) + column - x + width - 1)
            for row, column in group
        ]
        for group in groups
        for y, x in group
    }
    return dict(sorted(taps.items()))


def windows(height: int, width: int, size: int, shift: Position) -> list[list[Position]]:
    """The positions of a rolled and filled map that meet: of one window, on one side of the roll's seam."""
    groups: dict[tuple[int, ...], list[Position]] = {}
    for y in range(height):
        for x in range(width):
            beyond = (shift[0] > 0 and y >= height - shift[0], shift[1] > 0 and x >= width - shift[1])
            groups.setdefault((y // size, x // size, *beyond), []).append((y, x))
    return list(groups.values())


def at(x: Tensor, position: Position | None) -> Tensor:
    """(B, H, W, …) → (B, …) at a position, 0 outside the map."""
    return torch.zeros_like(x[:, 0, 0]) if position is None else x[:, position[0], position[1]]


def summed(values: Tensor, taps: Taps, filters: Callable[[Position, list[Tap]], Tensor]) -> Tensor:
    """Σ_t F[i, g(c), t] · v_t[c], filters giving (B or 1, G, taps) at a position, heads in blocks."""
    channels = values.shape[-1]
    found = []
    for position, met in taps.items():
        weights = filters(position, met)
        weights = weights.repeat_interleave(channels // weights.shape[1], 1)  # (B, C, taps)
        found.append((weights * torch.stack([at(values, key) for key, _ in met], -1)).sum(-1))
    return torch.stack(found, 1).unflatten(1, (len({y for y, _ in taps}), -1))


def neighbors(
    x: Tensor, kernel: int, *, dilation: int = 1, stride: int = 1, reflected: bool = False
) -> Tensor:
    """(B, H, W, C) → (B, H', W', K², C): 0 outside the map, or what its outermost positions mirror."""
    _, height, width, _ = x.shape
    taps = sliding(height, width, kernel, dilation=dilation, stride=stride)

    def mirrored(position: int, length: int) -> int:
        return length - 1 - abs(length - 1 - abs(position))

    def found(y: int, x_: int) -> Tensor:
        if not reflected:
            return torch.stack([at(x, key) for key, _ in taps[y, x_]], 1)
        reach = [dilation * (tap - kernel // 2) for tap in range(kernel)]
        places = [
            (mirrored(y + row, height), mirrored(x_ + column, width)) for row in reach for column in reach
        ]
        return torch.stack([at(x, place) for place in places], 1)

    rows, columns = range(0, height, stride), range(0, width, stride)
    return torch.stack([torch.stack([found(row, column) for column in columns], 1) for row in rows], 1)


def block_means(x: Tensor, stride: int) -> Tensor:
    """(B, H, W, C) → (B, ⌈H/stride⌉, ⌈W/stride⌉, C): means over blocks, or what the edge leaves of one."""
    rows, columns = range(0, x.shape[1], stride), range(0, x.shape[2], stride)
    means = [x[:, y : y + stride, z : z + stride].mean((1, 2)) for y in rows for z in columns]
    return torch.stack(means, 1).unflatten(1, (len(rows), len(columns)))


def batch_norm(x: Tensor, layer: nn.Module, dim: int = -1) -> Tensor:
    """With the statistics of all other dimensions in training, else with the running ones."""
    x = x.movedim(dim, -1)
    if layer.training:
        flat = x.flatten(0, -2)
        mean, variance = flat.mean(0), flat.var(0, unbiased=False)
    else:
        mean, variance = layer.running_mean, layer.running_var
    normal = (x - mean) / (variance + layer.eps).sqrt()
    return (normal * layer.weight + layer.bias).movedim(-1, dim)
