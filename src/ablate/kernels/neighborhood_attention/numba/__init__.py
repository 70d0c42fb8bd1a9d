"""Neighborhood attention on a CPU: loops compiled by Numba, float32, without the K² weights in memory.

Four neighboring positions are computed together, so that what one of them meets is loaded once for
all: `pairs.products` are the dot products of a block with all that it meets, `pairs.weighted` the sums with
their weights, and both serve the forward pass and its gradients. The backward pass runs twice over the
pairs, once from the queries and once from the keys, and computes weights and their gradients again in
both. No two threads add to the same element, and the same input gives the same bits.

Operations, stage 1 of Swin-T, batch 8 (56×56, 96 channels, 3 heads, K = 7): 236 M
multiply-accumulates forward, 826 M backward, 3.7 M exponentials in each of the three passes. A block of
four positions reads K + 3 columns in each row; each position needs only K of them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ablate.kernels._numba.run import flat, run
from ablate.kernels._numba.simd import vectors_for
from ablate.kernels._numba.taps import BLOCK, NONE, TapBlocks, TapList, tap_blocks, tap_list
from ablate.kernels.geometry import Neighborhood, offsets_per_axis
from ablate.kernels.neighborhood_attention.inputs import Inputs
from ablate.kernels.neighborhood_attention.numba.forward import Form, Maps, forward
from ablate.kernels.neighborhood_attention.numba.gradients import KeyMaps, QueryMaps, from_keys, from_queries
from ablate.kernels.neighborhood_attention.numba.pairs import NEVER, Terms


def attention(
    inputs: Inputs,
    neighborhood: Neighborhood,
) -> tuple[Tensor, Tensor]:
    """Output (B, H, W, C), and the rows' logarithms (B, heads, H, W); see `reference`."""
    query, key, value, _, axial = inputs
    batch, height, width, channels = query.shape
    heads = inputs.heads
    out, rows = torch.empty(query.shape), torch.empty(batch, heads, height, width)
    down, across = _tables(height, width, neighborhood, transposed=False)
    run(
        forward,
        Maps(*map(flat, (query, key, value, out, rows))),
        _terms(inputs, neighborhood, across),
        None if axial is None else flat(axial),
        down,
        across,
        _form(inputs, neighborhood, down, across),
        vectors_for(channels // heads),
    )
    return out.to(query.dtype), rows


def backward(
    grad: Tensor,
    inputs: Inputs,
    out: Tensor,
    rows: Tensor,
    neighborhood: Neighborhood,
    bias_gradient: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value, bias and axial; see `reference`."""
    query, key, value, bias, axial = inputs
    batch, height, width, channels = query.shape
    heads = inputs.heads
    mean = torch.empty(batch, heads, height, width)
    for image in range(batch):  # one at a time: no copy of all maps
        product = grad[image].float() * out[image].float()
        mean[image] = product.unflatten(-1, (heads, -1)).sum(-1).permute(2, 0, 1)
    of_query, of_key, of_value = (torch.empty(query.shape) for _ in range(3))
    lines = batch * height if bias_gradient else 0
    of_bias = torch.zeros(lines, *bias.shape)  # of every line of the maps, summed below
    of_axial = torch.zeros(() if axial is None else axial.shape)
    down, across = _tables(height, width, neighborhood, transposed=False)
    run(
        from_queries,
        QueryMaps(*map(flat, (query, grad, key, value, rows, mean, of_query, of_bias, of_axial))),
        _terms(inputs, neighborhood, across),
        None if axial is None else flat(axial),
        down,
        across,
        _form(inputs, neighborhood, down, across, bias_gradient),
        vectors_for(channels // heads),
    )
    down, across = _tables(height, width, neighborhood, transposed=True)
    run(
        from_keys,
        KeyMaps(*map(flat, (key, value, query, grad, rows, mean, of_key, of_value))),
        _terms(inputs, neighborhood, across),
        None if axial is None else flat(axial),
        down,
        across,
        _form(inputs, neighborhood, down, across),
        vectors_for(channels // heads),
    )
    of_query, of_key, of_value = (x.to(query.dtype) for x in (of_query, of_key, of_value))
    of_bias = of_bias.sum(0).to(bias.dtype) if bias_gradient else bias.new_empty(0)
    of_axial = query.new_empty(0) if axial is None else of_axial.to(axial.dtype)
    return of_query, of_key, of_value, of_bias, of_axial


def _tables(
    height: int, width: int, neighborhood: Neighborhood, *, transposed: bool
) -> tuple[TapList, TapBlocks]:
    return tap_list(height, neighborhood, transposed), tap_blocks(width, neighborhood, transposed)


def _bias_of_pairs(bias: Tensor, kernel: int, border: str, across: TapBlocks) -> np.ndarray:
    """(heads, row offsets, entries of the columns' blocks, 4), flat; NEVER where two do not meet."""
    axis = offsets_per_axis(kernel, border)
    table = bias.detach().float().numpy().reshape(bias.shape[0], axis, axis)
    return np.where(across.tap == NONE, NEVER, table[:, :, across.offset]).astype(np.float32).reshape(-1)


def _absent(across: TapBlocks, kernel: int, border: str) -> np.ndarray:
    """(blocks, K, 4), flat: 0 for a tap beyond the map's side that counts, with key 0; else NEVER."""
    found = np.full((len(across.regular), kernel, BLOCK), 0 if border == "zero" else NEVER, np.float32)
    for block in range(len(found)):
        met = across.tap.reshape(-1, BLOCK)[across.first[block] : across.first[block + 1]]
        entry, place = np.nonzero(met != NONE)
        found[block, met[entry, place], place] = NEVER
    return found.reshape(-1)


def _whole(across: TapBlocks, kernel: int, border: str) -> np.ndarray:
    """(blocks,): whether no position of a block has a tap beyond the map's side that counts."""
    present = _absent(across, kernel, border).reshape(len(across.regular), -1) < 0
    return np.asarray(present.all(axis=1))


def _room(vertical: TapList, horizontal: TapBlocks, kernel: int) -> int:
    """Pairs of one position of a block, at most, absent ones included, in whole vectors of four."""
    pairs = int(np.diff(vertical.first).max() * np.diff(horizontal.first).max())
    return -(-(pairs + kernel * kernel) // BLOCK) * BLOCK


def _terms(inputs: Inputs, neighborhood: Neighborhood, across: TapBlocks) -> Terms:
    """Build the tables that are added to the products of queries and keys."""
    kernel, _, border, _ = neighborhood
    return Terms(
        _bias_of_pairs(inputs.bias, kernel, border, across),
        flat(inputs.bias),
        _absent(across, kernel, border),
        _whole(across, kernel, border),
    )


def _form(
    inputs: Inputs,
    neighborhood: Neighborhood,
    vertical: TapList,
    horizontal: TapBlocks,
    needs_bias: bool = False,
) -> Form:
    kernel, _, border, _ = neighborhood
    return Form(
        heads=inputs.heads,
        kernel=kernel,
        axis=offsets_per_axis(kernel, border),
        room=_room(vertical, horizontal, kernel),
        counts=border == "zero",
        width=inputs.query.shape[2],
        needs_bias=needs_bias,
    )
