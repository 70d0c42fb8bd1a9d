"""Tables of taps along one axis, for loops: which positions each position reads, and by which tap.

A sum that gathers needs, for every position that it writes, the positions that it reads and the taps
that belong to them. `aggregate` and `scores` write at the centre of a neighborhood; `aggregate_transpose`
writes at a neighbor and reads the centres that reach it. Border rules, dilation and stride are all in these
tables, and nowhere in the loops.

Rows are visited one by one (`tap_list`). Columns are written four at a time (`tap_blocks`), so that a value
is loaded once for all of the four that meet it. Sums over positions use `tap_runs`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ablate.kernels.geometry import Neighborhood, axis_taps

BLOCK = 4  # positions that a loop computes together
NONE = -1  # the tap of a position that does not meet another


class TapList(NamedTuple):
    """The taps of all positions of an axis; those of position i are entries first[i] to first[i + 1]."""

    first: np.ndarray  # (positions + 1,)
    other: np.ndarray  # (entries,) the position that is read
    tap: np.ndarray  # (entries,) its tap
    offset: np.ndarray  # (entries,) its row of the relative-position table


class TapBlocks(NamedTuple):
    """The taps of four positions at a time; those of block b are entries first[b] to first[b + 1].

    In a regular block the four positions meet K + 3 evenly spaced ones, position p from entry p on, by taps
    that rise by one, or fall by one if transposed.
    """

    first: np.ndarray  # (blocks + 1,)
    other: np.ndarray  # (entries,) the position that is read
    tap: np.ndarray  # (entries · 4,) its tap for each of the four positions; NONE if they do not meet
    offset: np.ndarray  # (entries · 4,) its column of the relative-position table; 0 if they do not meet
    regular: np.ndarray  # (blocks,)


class TapRuns(NamedTuple):
    """Runs of positions whose neighbors at one tap are evenly spaced and have one offset."""

    tap: np.ndarray  # (runs,)
    offset: np.ndarray  # (runs,)
    begin: np.ndarray  # (runs,) first position
    length: np.ndarray  # (runs,) positions
    other: np.ndarray  # (runs,) neighbor of the first position
    step: np.ndarray  # (runs,) from one position's neighbor to the next one's


@lru_cache(maxsize=256)
def tap_list(length: int, neighborhood: Neighborhood, transposed: bool) -> TapList:
    """Return the taps along an axis of `length` positions, or those of `aggregate_transpose`."""
    taps = axis_taps(length, neighborhood)
    centre, tap = np.nonzero(taps.valid.numpy())
    neighbor, offset = taps.position.numpy()[centre, tap], taps.offset.numpy()[centre, tap]
    written, read = (neighbor, centre) if transposed else (centre, neighbor)
    order = np.lexsort((tap, read, written))
    written, read, tap, offset = (x[order].astype(np.int64) for x in (written, read, tap, offset))
    positions = length if transposed else len(taps.position)
    first = np.searchsorted(written, np.arange(positions + 1)).astype(np.int64)
    return TapList(first, read, tap, offset)


@lru_cache(maxsize=256)
def tap_blocks(length: int, neighborhood: Neighborhood, transposed: bool) -> TapBlocks:
    """Return the taps of four positions at a time; the last block may have fewer."""
    first, other, tap, offset = tap_list(length, neighborhood, transposed)
    firsts, others, taps, offsets, regular = [0], [], [], [], []
    for start in range(0, len(first) - 1, BLOCK):
        entries: dict[
            tuple[int, int], list[tuple[int, int]]
        ] = {}  # (other, time met) → (tap, offset) of each
        for place in range(min(BLOCK, len(first) - 1 - start)):
            times: dict[int, int] = {}
            for entry in range(first[start + place], first[start + place + 1]):
                read = int(other[entry])
                times[read] = times.get(read, -1) + 1  # a mirrored border may lead to one position twice
                met = entries.setdefault((read, times[read]), [(NONE, 0)] * BLOCK)
                met[place] = int(tap[entry]), int(offset[entry])
        for (read, _), met in sorted(entries.items()):
            others.append(read)
            taps.append([one for one, _ in met])
            offsets.append([one for _, one in met])
        begin = firsts[-1]
        regular.append(_regular(others[begin:], taps[begin:], offsets[begin:], neighborhood.kernel))
        firsts.append(len(others))
    tables = [np.array(x, dtype=np.int64).reshape(-1) for x in (firsts, others, taps, offsets)]
    return TapBlocks(tables[0], tables[1], tables[2], tables[3], np.array(regular, dtype=np.bool_))


def _regular(others: list[int], taps: list[list[int]], offsets: list[list[int]], kernel: int) -> bool:
    if kernel < BLOCK - 1 or len(others) != kernel + BLOCK - 1:
        return False
    place = np.arange(len(others))[:, None] - np.arange(BLOCK)
    meets = (place >= 0) & (place < kernel)
    tap, offset = np.array(taps), np.array(offsets)
    rising, falling = (np.where(meets, x, NONE) for x in (place, kernel - 1 - place))
    ordered = bool((tap == rising).all() or (tap == falling).all())
    alike = len(set((offset - tap)[meets].tolist())) == 1
    return ordered and alike and bool((np.diff(others) == 1).all())


@lru_cache(maxsize=256)
def tap_runs(length: int, neighborhood: Neighborhood) -> TapRuns:
    """The runs along an axis of `length` positions, tap by tap."""
    taps = axis_taps(length, neighborhood)
    position, valid, offset = (x.numpy() for x in taps)
    found: list[list[int]] = []
    for tap in range(neighborhood.kernel):
        going = False
        for i in np.flatnonzero(valid[:, tap]):
            here = int(position[i, tap])
            if going:
                _, known, begin, count, other, step = found[-1]
                follows = i == begin + count and known == offset[i, tap]
                if follows and (count == 1 or here == other + count * step):
                    found[-1][3:] = count + 1, other, here - other if count == 1 else step
                    continue
            found.append([tap, int(offset[i, tap]), int(i), 1, here, 0])
            going = True
    return TapRuns(*np.array(found, dtype=np.int64).reshape(-1, 6).T.copy())
