"""Laws of parallel local-global attention, and of the pooling that it shares with aggregated attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.small import build, close, drawn, image

from ablate.kernels.layout import pool_cells

sizes = st.tuples(st.integers(3, 9), st.integers(3, 9))


@settings(max_examples=15, deadline=None)
@given(sizes, st.data())
def test_cells_are_those_of_adaptive_pooling(size: tuple[int, int], data: st.DataObject) -> None:
    grid = tuple(data.draw(st.integers(1, side)) for side in size)
    x, images = image(*size), image(*size).permute(0, 3, 1, 2)
    close(pool_cells(x, grid), F.adaptive_avg_pool2d(images, grid).permute(0, 2, 3, 1))
    close(pool_cells(x, grid, "amax"), F.adaptive_max_pool2d(images, grid).permute(0, 2, 3, 1))


@settings(max_examples=10, deadline=None)
@given(sizes, st.integers(0, 8))
def test_local_heads_see_their_window_and_global_ones_the_map(size: tuple[int, int], place: int) -> None:
    operator = drawn(build("plg", resolution=size, window=3, tokens=9))  # every position is a token
    x = image(*size)
    row, column = place // 3, place % 3
    changed = x.clone()
    changed[:, row, column] += 1
    local = (operator.local(changed) - operator.local(x)).abs().sum((0, 3)) > 1e-12
    inside = torch.zeros(size, dtype=torch.bool)
    inside[:3, :3] = True
    assert torch.equal(local, inside)
    assert ((operator.everywhere(changed) - operator.everywhere(x)).abs().sum((0, 3)) > 1e-12).all()
