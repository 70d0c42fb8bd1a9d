"""Parts of a neighborhood's pairs, some rows or images at a time: shared by the passes over them.

A part has channels first, (b, C, K, K, rows, W) for some rows of b images: the long side of matrix products
is then last, and memory is read and written along rows of the map. Maps of neighbors are padded,
(B, C, H + K − 1, W + K − 1). No pass stores a part: backward passes compute it again. Sums over parts are
taken in the order of the parts, without atomics: the same input gives the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

ENTRIES = {"cpu": 2**19, "cuda": 2**25}  # of a part: what stays in a core's cache, what keeps a card busy

Part = tuple[slice, slice]  # images and rows


def parts(neighbor: Tensor, kernel: int) -> Iterator[Part]:
    """Slices of images and rows whose pairs have at most `ENTRIES` entries, one row at least."""
    batch, channels = neighbor.shape[:2]
    height, width = inner(neighbor, kernel)
    lines = max(1, ENTRIES[neighbor.device.type] // (width * channels * kernel**2))
    images, rows = max(1, lines // height), min(lines, height)
    for image in range(0, batch, images):
        for row in range(0, height, rows):
            yield slice(image, min(image + images, batch)), slice(row, min(row + rows, height))


def inner(neighbor: Tensor, kernel: int) -> tuple[int, int]:
    """(H, W) of the map that was padded."""
    return neighbor.shape[2] - kernel + 1, neighbor.shape[3] - kernel + 1


def taps(neighbor: Tensor, part: Part, kernel: int) -> Tensor:
    """The neighbors of a part, (b, C, K, K, rows, W): a view."""
    images, rows = part
    reached = neighbor[images, :, rows.start : rows.stop + kernel - 1]
    return reached.unfold(2, kernel, 1).unfold(3, kernel, 1).permute(0, 1, 4, 5, 2, 3)


def gather(of_taps: Tensor, part: Part, of_neighbor: Tensor, sign: int) -> None:
    """Add gradients of a part's neighbors (b, C, K, K, rows, W) to those of the padded map."""
    (images, rows), kernel = part, of_taps.shape[2]
    theirs = of_neighbor[images, :, rows.start : rows.stop + kernel - 1]
    theirs.add_(F.fold(of_taps.flatten(4).flatten(1, 3), theirs.shape[2:], kernel), alpha=sign)


def times(matrix: Tensor, columns: Tensor) -> Tensor:
    """Multiply (M, N) by (b, N, L) without a copy; `matmul` may transpose and copy the result."""
    return torch.bmm(matrix.expand(columns.shape[0], -1, -1), columns)


def relu_backward(grad: Tensor, activated: Tensor) -> Tensor:
    """The gradient where relu's output is not 0."""
    return torch.ops.aten.threshold_backward(grad, activated, 0)


def exact(x: Tensor) -> Tensor:
    """Convert to float32; float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def totals(*weights: Tensor) -> list[Tensor]:
    """Zeros for the gradients of weights, in which parts are summed: in float32 at least."""
    return [exact(torch.zeros_like(x)) for x in weights]
