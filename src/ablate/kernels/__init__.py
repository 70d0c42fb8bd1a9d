"""Operations over sliding neighborhoods, as functions on channels-last tensors.

One folder per operation: `neighborhood_sums` (four sums), `neighborhood_attention` (scores, softmax and
sum in one pass), `slide_attention` (the same over neighbors that static filters mix), `sampled_sums`
(samples between positions), `pairwise_features` (the filters of SAN and LESA). The `__init__` of a folder is
the PyTorch operator with gradients and FLOP counts, `reference` computes it in plain PyTorch, `numba` on the
CPU, `triton` on CUDA. `pairwise_features` has none of the three: plain PyTorch computes it on every device.
`sampled_sums` has no `triton` yet.
`geometry` defines which positions a neighborhood reaches, `precision` the dtype under autocast, `dispatch`
chooses the implementation, `selfcheck` compares the Triton kernels with the reference before their first use,
`_numba` and `_triton` hold what the kernels of a backend share. Used by `ops`, `training` and `bench`. Start
reading in `neighborhood_sums`; docs/concepts/kernels.md has a table of which file computes which gradient.
"""

from __future__ import annotations

from typing import Unpack

import torch.nn.functional as F
from torch import Tensor

from ablate.kernels import neighborhood_sums, sampled_sums, slide_attention
from ablate.kernels.convolution import convolve_each
from ablate.kernels.dispatch import use
from ablate.kernels.geometry import Neighborhood, Sliding, strided
from ablate.kernels.neighborhood_attention import attention
from ablate.kernels.precision import in_autocast

__all__ = ["aggregate", "attention", "sampled_sums", "scores", "slide_attention", "use"]


def aggregate(
    values: Tensor,
    filters: Tensor,
    *,
    multiply: Tensor | None = None,
    add: Tensor | None = None,
    **sliding: Unpack[Sliding],
) -> Tensor:
    """y[i, c] = Σ_t (multiply[c, o] · F[i, g(c), t] + add[c, o]) · v[n(i, t), c], with o = o(i, t).

    Channels belong to heads in contiguous blocks; o is the relative offset of the neighbor, which is
    the tap itself unless the neighborhood moves inside at the border. Filters broadcast over batch
    and positions: those of shape (1, 1, 1, G, K²) are the same at every position. With a stride, i
    runs over H' = ⌈H / stride⌉ rows and W' columns.

    Args:
        values: (B, H, W, C).
        filters: (B or 1, H' or 1, W' or 1, G, K²), G dividing C.
        multiply: (B or 1, C, offsets), such as the ghost head's o^λ.
        add: the same, such as the ghost head's γ·s.
        sliding: `kernel`, and `dilation`, `border` and `stride`; see `Neighborhood`.

    Returns:
        (B, H', W', C) in the dtype of `values`, or of autocast.
    """
    neighborhood = Neighborhood(**sliding)
    values = in_autocast(values)
    filters = filters.to(values.dtype)
    multiply, add = (None if x is None else x.to(values.dtype).contiguous() for x in (multiply, add))
    batch, height, width, channels = values.shape
    if filters.shape[1:3] == (1, 1) and neighborhood.border in ("zero", "mask"):
        static = filters[:, 0, 0].repeat_interleave(channels // filters.shape[-2], dim=1)
        static = static if multiply is None else static * multiply
        return _convolution(values, static if add is None else static + add, *neighborhood)
    y = None
    if add is not None and multiply is None and neighborhood.border in ("zero", "mask"):
        # The sum is linear in its filters: the static part alone (ELSA's γ·s) is a depthwise convolution,
        # whose gradients are PyTorch's.
        y, add = _convolution(values, add, *neighborhood), None
    rows, columns = strided(height, neighborhood.stride), strided(width, neighborhood.stride)
    filters = filters.expand(batch, rows, columns, -1, -1).contiguous()
    dynamic = neighborhood_sums.aggregate(values.contiguous(), filters, multiply, add, *neighborhood)
    return dynamic if y is None else dynamic + y


def scores(
    query: Tensor,
    key: Tensor,
    heads: int,
    *,
    multiply: Tensor | None = None,
    add: Tensor | None = None,
    bias: Tensor | None = None,
    **sliding: Unpack[Sliding],
) -> Tensor:
    """s[i, g, t] = Σ_c (multiply[c, o] · q[i, c] + add[c, o]) · k[n(i, t), c] + bias[g, o], with o = o(i, t).

    The sum runs over the channels of head g. Outside the map keys are 0 and the bias is left.

    Args:
        query: (B, H', W', C).
        key: (B, H, W, C).
        heads: number of heads, dividing C.
        multiply: (B or 1, C, offsets).
        add: the same, such as the relative position r^q that meets keys.
        bias: (heads, offsets).
        sliding: `kernel`, and `dilation`, `border` and `stride`, the distance between the positions that have
            a query; see `Neighborhood`.

    Returns:
        (B, H', W', heads, K²) in the dtype of `query`, or of autocast.
    """
    neighborhood = Neighborhood(**sliding)
    query = in_autocast(query)
    query, key = (x.to(query.dtype).contiguous() for x in (query, key))
    static = (None if x is None else x.to(query.dtype).contiguous() for x in (multiply, add, bias))
    return neighborhood_sums.scores(query, key, *static, heads, *neighborhood)


def _convolution(
    values: Tensor, filters: Tensor, kernel: int, dilation: int, border: str, stride: int
) -> Tensor:
    """Depthwise, with filters (1, C, K²) for all images or (B, C, K²), one for each."""
    images, channels = values.permute(0, 3, 1, 2), values.shape[-1]
    weight, padding = filters.unflatten(-1, (1, kernel, kernel)), dilation * (kernel - 1) // 2
    if filters.shape[0] == 1:
        y = F.conv2d(images, weight[0], None, stride, padding, dilation, channels)
    else:
        y = convolve_each(images, weight, stride=stride, padding=padding, dilation=dilation, groups=channels)
    return y.permute(0, 2, 3, 1)
