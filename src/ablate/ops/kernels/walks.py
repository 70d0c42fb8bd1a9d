"""How a loop walks from each position to those it meets, along one axis: for kernels that are loops.

A sum that gathers needs, for every position that it writes, the positions that it reads and the taps
that belong to them. `aggregate` and `scores` write where the neighbourhood's centre is; `spread`, their
transpose, writes where a neighbour is and reads the centres that reach it. Border rules, dilation and
stride are all in these tables, and nowhere in the loops.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ablate.ops.kernels.geometry import axis_taps

BLOCK = 4  # positions that a loop computes together where their walks are shifted copies


class Walk(NamedTuple):
    """The walks of all positions of an axis; those of position i are entries first[i] to first[i + 1]."""

    first: np.ndarray  # (positions + 1,)
    other: np.ndarray  # (entries,) the position that is read
    tap: np.ndarray  # (entries,) its tap
    offset: np.ndarray  # (entries,) its row of the relative-position table
    regular: np.ndarray  # (positions,) whether a block begins here: whole, evenly spaced, shifted by `shift`
    shift: np.ndarray  # (positions,) from one position's walk to the next one's, within a block
    step: np.ndarray  # (positions,) from one entry to the next, within a block


@lru_cache(maxsize=256)
def walk(length: int, kernel: int, dilation: int, border: str, stride: int, transposed: bool) -> Walk:
    """The walks along an axis of `length` positions; `transposed` for those of `spread`."""
    taps = axis_taps(length, kernel, dilation, border, stride)
    centre, tap = np.nonzero(taps.valid.numpy())
    neighbor, offset = taps.position.numpy()[centre, tap], taps.offset.numpy()[centre, tap]
    written, read = (neighbor, centre) if transposed else (centre, neighbor)
    order = np.lexsort((read, tap, written))
    written, read, tap, offset = (x[order].astype(np.int64) for x in (written, read, tap, offset))
    positions = length if transposed else len(taps.position)
    first = np.searchsorted(written, np.arange(positions + 1)).astype(np.int64)
    return Walk(first, read, tap, offset, *_blocks(first, read, tap, offset, kernel))


def _blocks(
    first: np.ndarray, other: np.ndarray, tap: np.ndarray, offset: np.ndarray, kernel: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where blocks may begin: four whole walks with the same taps and offsets, one a shift of the other."""
    positions = len(first) - 1
    regular = np.zeros(positions, dtype=np.bool_)
    shift, step = np.zeros(positions, dtype=np.int64), np.zeros(positions, dtype=np.int64)
    whole = np.diff(first) == kernel
    for position in range(positions - BLOCK + 1):
        if not whole[position : position + BLOCK].all():
            continue
        entries = first[position] + np.arange(BLOCK * kernel).reshape(BLOCK, kernel)
        shifts, steps = np.diff(other[entries], axis=0), np.diff(other[entries], axis=1)
        in_order = (tap[entries] == np.arange(kernel)).all()
        alike = (offset[entries] - tap[entries] == offset[entries[0, 0]]).all()
        even = (shifts == shifts[0, 0]).all() and (kernel == 1 or (steps == steps[0, 0]).all())
        if in_order and alike and even:
            regular[position], shift[position] = True, shifts[0, 0]
            step[position] = steps[0, 0] if kernel > 1 else 0
    return regular, shift, step
