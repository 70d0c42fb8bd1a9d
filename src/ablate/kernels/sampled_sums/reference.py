"""Sums over samples in plain PyTorch, tap by tap: memory is that of a few maps, whatever the number of taps.

A displacement is split into whole positions and a rest between 0 and 1 before positions are added to it, so
that nothing is rounded but the rest itself. The gradient of the values is summed by `index_put_`, which on
CUDA sorts what meets at one position: the same input gives the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Corner(NamedTuple):
    """One of the four positions around the samples of a tap; all are (B, H', W', G)."""

    row: Tensor  # of the flat values (B · H · W · G, C/G); that of another position where it is outside
    share: Tensor  # of the sample, 0 outside the map
    by_row: Tensor  # derivative of the share by the row displacement
    by_column: Tensor  # the same of the column


def aggregate(values: Tensor, weights: Tensor, displacements: Tensor, stride: int) -> Tensor:
    """(B, H, W, C), (B, H', W', G, T), (B, H', W', O, T, 2) → (B, H', W', C)."""
    rows = _rows(values, weights.shape[3])
    shared = weights.shape[3] // displacements.shape[3]
    found = rows.new_zeros(*weights.shape[:4], rows.shape[-1])
    for tap in range(weights.shape[-1]):
        for corner in corners(values, displacements[..., tap, :].repeat_interleave(shared, 3), stride):
            factor = weights[..., tap].to(rows.dtype) * corner.share
            found += factor[..., None] * rows[corner.row]
    return found.flatten(3).to(values.dtype)


def backward(
    grad: Tensor, values: Tensor, weights: Tensor, displacements: Tensor, stride: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the three operands of `aggregate`, each in its dtype."""
    rows = _rows(values, weights.shape[3])
    shared = weights.shape[3] // displacements.shape[3]
    grad = grad.to(rows.dtype).unflatten(-1, (weights.shape[3], -1))  # (B, H', W', G, d)
    of_values = torch.zeros_like(rows)
    of_weights = torch.zeros_like(weights, dtype=rows.dtype)
    of_displacements = torch.zeros_like(displacements, dtype=rows.dtype)
    for tap in range(weights.shape[-1]):
        weight = weights[..., tap].to(rows.dtype)
        for corner in corners(values, displacements[..., tap, :].repeat_interleave(shared, 3), stride):
            product = (grad * rows[corner.row]).sum(-1)
            of_weights[..., tap] += product * corner.share
            for axis, by_place in enumerate((corner.by_row, corner.by_column)):
                by_head = (product * weight * by_place).unflatten(-1, (-1, shared))
                of_displacements[..., tap, axis] += by_head.sum(-1)
            terms = ((weight * corner.share)[..., None] * grad).flatten(0, 3)
            of_values.index_put_((corner.row.flatten(),), terms, accumulate=True)
    return (
        of_values.view(values.shape).to(values.dtype),
        of_weights.to(weights.dtype),
        of_displacements.to(displacements.dtype),
    )


def corners(values: Tensor, displacement: Tensor, stride: int) -> Iterator[Corner]:
    """The four positions around each sample of a tap, by displacements (B, H', W', G, 2)."""
    batch, height, width, _ = values.shape
    rows, columns, heads = displacement.shape[1:4]
    whole = displacement.floor()
    (down, right), (below, beyond) = (displacement - whole).unbind(-1), whole.unbind(-1)
    device = values.device
    top = below + stride * torch.arange(rows, device=device)[:, None, None]
    left = beyond + stride * torch.arange(columns, device=device)[:, None]
    image = torch.arange(batch, device=device)[:, None, None, None]
    head = torch.arange(heads, device=device)
    for row, at_row, sign_row in ((top, 1 - down, -1), (top + 1, down, 1)):
        for column, at_column, sign_column in ((left, 1 - right, -1), (left + 1, right, 1)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            y, x = (
                place.nan_to_num(0).clamp(0, length - 1).long()
                for place, length in ((row, height), (column, width))
            )
            yield Corner(
                ((image * height + y) * width + x) * heads + head,
                at_row * at_column * inside,
                sign_row * at_column * inside,
                sign_column * at_row * inside,
            )


def _rows(values: Tensor, heads: int) -> Tensor:
    """(B, H, W, C) → (B · H · W · G, C/G), in float32 or finer."""
    exact = torch.promote_types(values.dtype, torch.float32)
    return values.to(exact).reshape(-1, values.shape[-1] // heads)
