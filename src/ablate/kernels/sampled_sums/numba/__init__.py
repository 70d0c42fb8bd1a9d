"""Sums over samples on a CPU: loops compiled by Numba, float32, nothing of the size of a map per tap.

Forward, each line of the output is a piece of its own. Backward, a piece is the heads
of an image that have one displacement: it owns the gradients of their values and displacements, into which it
sums position by position in one order, so that no two threads write to one place and the same input gives the
same bits on any number of threads.

Operations, stage 1 of Swin-T, batch 8 (56×56, 96 channels, 6 heads, 9 taps): 108 M multiply-accumulates
forward, 173 M backward; 11 MB of displacements and 5 MB of weights beside 10 MB of values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ablate.kernels._numba.run import flat, run
from ablate.kernels._numba.simd import lanes_for
from ablate.kernels.sampled_sums.numba import loops


def aggregate(values: Tensor, weights: Tensor, displacements: Tensor, stride: int) -> Tensor:
    """(B, H, W, C), (B, H', W', G, T), (B, H', W', O, T, 2) → (B, H', W', C); see `reference`."""
    out = torch.empty(*weights.shape[:3], values.shape[-1])
    form, lanes = _form(values, weights, displacements, stride)
    run(loops.samples, loops.Maps(*map(flat, (values, weights, displacements))), flat(out), form, lanes)
    return out.to(values.dtype)


def backward(
    grad: Tensor, values: Tensor, weights: Tensor, displacements: Tensor, stride: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the three operands; see `reference`."""
    of_values, of_weights = torch.zeros(values.shape), torch.zeros(weights.shape)
    of_displacements = torch.zeros(displacements.shape)
    form, lanes = _form(values, weights, displacements, stride)
    run(
        loops.samples_backward,
        flat(grad),
        loops.Maps(*map(flat, (values, weights, displacements))),
        loops.Maps(*map(flat, (of_values, of_weights, of_displacements))),
        form,
        lanes,
    )
    return (
        of_values.to(values.dtype),
        of_weights.to(weights.dtype),
        of_displacements.to(displacements.dtype),
    )


def _form(
    values: Tensor, weights: Tensor, displacements: Tensor, stride: int
) -> tuple[loops.Form, tuple[int, ...]]:
    _, rows, columns, heads, taps = weights.shape
    width = values.shape[-1] // heads
    lanes = lanes_for(width)
    size = (values.shape[1], values.shape[2])
    shared = heads // displacements.shape[3]
    return loops.Form((rows, columns), size, heads, shared, taps, stride, width // len(lanes)), lanes
