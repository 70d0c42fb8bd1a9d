"""The sums on a CPU: loops compiled by Numba, float32 throughout.

Sums stay in registers, those of four neighboring positions at a time. A value is therefore loaded once for
all taps that meet it. A filter is combined with its static factors while it is read: there is no copy of the
map and no filter per channel, and memory is that of inputs and outputs. Half precision is computed in
float32, float64 by the reference. Numba keeps the compiled loops beside this file or in the user's
cache; one is compiled for each width of a vector, with and without static factors.

Operations and bytes in stage 1 of Swin-T at batch 8 (56×56, 96 channels, 3 heads, K = 7):

    each sum            118 M multiply-accumulates, and as many more with static factors
    `static_grad`       three operations for each of them
    memory              15 MB of filters, 10 MB of values, 10 MB of output

With vectors of 8 lanes, arithmetic limits the speed. With 16 lanes, memory traffic limits `aggregate` without
static factors; its inner loop is 16 multiply-additions in 31 instructions. 32 lanes spill registers. A loop
over taps instead of values was a fifth slower on two AVX2 cores. `ablate bench kernels` measures the speed,
and benchmarks/ has the records.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ablate.kernels._numba.run import flat, run
from ablate.kernels._numba.simd import lanes_for
from ablate.kernels._numba.taps import tap_blocks, tap_list, tap_runs
from ablate.kernels.geometry import Neighborhood, offsets_per_axis, strided
from ablate.kernels.neighborhood_sums.numba import gather, products, static_grad_loop

WIDE = 16  # lanes from which loops are compiled for one kernel: a fifth faster, and compiled more often
TILE = 4  # rows that share the values they load, where there are enough pieces for all threads
PIECES = 32  # of a sum over the batch, at least, to share among threads


def aggregate(
    values: Tensor,
    filters: Tensor,
    multiply: Tensor | None,
    add: Tensor | None,
    neighborhood: Neighborhood,
) -> Tensor:
    """(B, H, W, C), (B, H', W', G, K²), (B or 1, C, offsets) → (B, H', W', C); see `reference`."""
    out = torch.empty(*filters.shape[:3], values.shape[-1])
    _gather(values, filters, (multiply, add), out, neighborhood, transposed=False)
    return out.to(values.dtype)


def aggregate_transpose(
    outputs: Tensor,
    filters: Tensor,
    multiply: Tensor | None,
    add: Tensor | None,
    height: int,
    width: int,
    neighborhood: Neighborhood,
) -> Tensor:
    """(B, H', W', C), (B, H', W', G, K²), (B or 1, C, offsets) → (B, H, W, C); see `reference`."""
    out = torch.empty(outputs.shape[0], height, width, outputs.shape[-1])
    _gather(outputs, filters, (multiply, add), out, neighborhood, transposed=True)
    return out.to(outputs.dtype)


def scores(
    query: Tensor,
    key: Tensor,
    multiply: Tensor | None,
    add: Tensor | None,
    bias: Tensor | None,
    heads: int,
    neighborhood: Neighborhood,
) -> Tensor:
    """(B, H', W', C), (B, H, W, C), (B or 1, C, offsets), (G, offsets) → (B, H', W', G, K²)."""
    kernel, _, border, stride = neighborhood
    batch, height, width, channels = key.shape
    out = torch.empty(batch, strided(height, stride), strided(width, stride), heads, kernel**2)
    lanes = lanes_for(channels // heads)
    multiply, add = _alike(multiply, add)
    run(
        products.products,
        products.Maps(
            flat(query),
            flat(key),
            flat(out),
            _by_offset(multiply),
            _by_offset(add),
        ),
        None if bias is None else flat(bias),
        tap_list(height, neighborhood, False),
        tap_blocks(width, neighborhood, False),
        products.Form(
            columns=out.shape[2],
            size=(height, width),
            heads=heads,
            kernel=kernel,
            static=(offsets_per_axis(kernel, border), max(_per_image(multiply), _per_image(add))),
            chunks=channels // heads // len(lanes),
        ),
        lanes,
    )
    return out.to(query.dtype)


def static_grad(
    outputs: Tensor,
    values: Tensor,
    filters: Tensor,
    neighborhood: Neighborhood,
    shared: bool = False,
) -> tuple[Tensor, Tensor]:
    """(B, H', W', C), (B, H, W, C), (B, H', W', G, K²) → (B or 1, C, offsets) twice; see `reference`."""
    kernel, _, border, _ = neighborhood
    batch, height, width, channels = values.shape
    heads = filters.shape[3]
    lanes = lanes_for(channels // heads)
    offsets = offsets_per_axis(kernel, border)
    parts = channels // len(lanes)
    groups = min(batch, -(-PIECES // parts)) if shared else batch
    found = [torch.empty(groups, offsets**2, channels) for _ in range(2)]
    run(
        static_grad_loop.static_grad_loop,
        static_grad_loop.Maps(*map(flat, (outputs, values, filters, *found))),
        tap_list(height, neighborhood, False),
        tap_runs(width, neighborhood),
        static_grad_loop.Form(
            written=tuple(outputs.shape[1:3]),
            size=(height, width),
            heads=heads,
            kernel=kernel,
            axis=offsets,
            chunks=channels // heads // len(lanes),
        ),
        lanes,
    )
    if shared and groups != 1:  # an empty batch gives zeros
        found = [x.sum(0, keepdim=True) for x in found]
    of_multiply, of_add = (x.transpose(1, 2).to(outputs.dtype).contiguous() for x in found)
    return of_multiply, of_add


def _gather(
    read: Tensor,
    filters: Tensor,
    static: tuple[Tensor | None, Tensor | None],
    out: Tensor,
    neighborhood: Neighborhood,
    *,
    transposed: bool,
) -> None:
    """Fill `out` with the sums, or with those of the transpose, which reads outputs."""
    heads, width = filters.shape[3], out.shape[-1] // filters.shape[3]
    lanes, kernel = lanes_for(width), neighborhood.kernel
    multiply, add = _alike(*static)
    height, columns = (out if transposed else read).shape[1:3]
    run(
        gather.gather,
        gather.Maps(flat(read), flat(filters), _by_offset(multiply), _by_offset(add), flat(out)),
        tap_list(height, neighborhood, transposed),
        tap_blocks(columns, neighborhood, transposed),
        gather.Form(
            columns=out.shape[2],
            size=tuple(read.shape[1:3]),
            heads=heads,
            side=(0,) * kernel if len(lanes) >= WIDE else kernel,
            static=(
                offsets_per_axis(kernel, neighborhood.border),
                max(_per_image(multiply), _per_image(add)),
            ),
            chunks=width // len(lanes),
            transposed=transposed,
            tile=TILE if out.shape[:2].numel() >= 4 * TILE * torch.get_num_threads() else 1,
        ),
        lanes,
    )


def _alike(multiply: Tensor | None, add: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Static factors of as many images."""
    if multiply is None or add is None:
        return multiply, add
    images = max(multiply.shape[0], add.shape[0])
    return multiply.expand(images, -1, -1), add.expand(images, -1, -1)


def _by_offset(static: Tensor | None) -> np.ndarray | None:
    """(B or 1, C, offsets) → flat, channels last, so that a vector holds neighboring channels."""
    return None if static is None else flat(static.transpose(1, 2))


def _per_image(static: Tensor | None) -> int:
    """Entries from one image's static factor to the next one's."""
    return 0 if static is None or static.shape[0] == 1 else static.shape[1:].numel()
