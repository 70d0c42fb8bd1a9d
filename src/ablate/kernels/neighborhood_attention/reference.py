"""Neighborhood attention composed of the three sums: the reference for every fast path."""

from __future__ import annotations

import torch
from torch import Tensor

from ablate.kernels.geometry import Neighborhood, axis_taps, map_taps
from ablate.kernels.neighborhood_attention.inputs import Inputs
from ablate.kernels.neighborhood_sums import reference as sums


def row_type(dtype: torch.dtype) -> torch.dtype:
    """Dtype of the logarithms of the row sums: float32 or wider."""
    return torch.promote_types(dtype, torch.float32)


def attention(
    inputs: Inputs,
    neighborhood: Neighborhood,
) -> tuple[Tensor, Tensor]:
    """Output (B, H, W, C), and the rows' logarithms (B, heads, H, W)."""
    found = _logits(inputs, neighborhood)
    rows = found.logsumexp(-1)
    weights = (found - rows[..., None]).exp().to(inputs.value.dtype)
    y = sums.aggregate(inputs.value, weights, None, None, neighborhood)
    return y, rows.permute(0, 3, 1, 2).contiguous()


def backward(
    grad: Tensor,
    inputs: Inputs,
    out: Tensor,
    rows: Tensor,
    neighborhood: Neighborhood,
    bias_gradient: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value, bias and axial, from weights computed again.

    That of bias is empty without `bias_gradient`, that of axial where there is no axial.
    """
    query, key, value, bias, axial = inputs
    _, height, width, _ = query.shape
    found = _logits(inputs, neighborhood)
    weights = (found - rows.permute(0, 2, 3, 1)[..., None]).exp()
    of_weights = sums.scores(grad, value, None, None, None, inputs.heads, neighborhood).to(weights.dtype)
    mean = (grad * out).unflatten(-1, (inputs.heads, -1)).sum(-1, dtype=weights.dtype)
    of_logits = weights * (of_weights - mean[..., None])
    thin, of_logits_thin = weights.to(value.dtype), of_logits.to(value.dtype)
    of_bias, of_axial = bias.new_empty(0), query.new_empty(0)
    if bias_gradient:
        of_bias = _by_offset(of_logits, bias, neighborhood)
    if axial is not None:
        of_axial = _by_axis(of_logits, neighborhood).to(axial.dtype)
    return (
        sums.aggregate(key, of_logits_thin, None, None, neighborhood),
        sums.aggregate_transpose(query, of_logits_thin, None, None, height, width, neighborhood),
        sums.aggregate_transpose(grad, thin, None, None, height, width, neighborhood),
        of_bias,
        of_axial,
    )


def logits(scores: Tensor, bias: Tensor, axial: Tensor | None, neighborhood: Neighborhood) -> Tensor:
    """(B, H, W, heads, K²) scores → with bias and axial terms, in float32 or more.

    −∞ where a tap does not count.
    """
    _, height, width, _, _ = scores.shape
    scores = scores.to(row_type(scores.dtype))
    found = map_taps(height, width, neighborhood, scores.device)
    by_tap = bias.to(scores.dtype)[:, found.offset].unflatten(1, (height, width))  # (heads, H, W, K²)
    found_logits = scores + by_tap.permute(1, 2, 0, 3)
    if axial is not None:
        found_logits = found_logits + _at_taps(axial.to(scores.dtype), neighborhood)
    if neighborhood.border == "mask":
        return found_logits.masked_fill(~found.valid.view(height, width, 1, -1), float("-inf"))
    return found_logits


def _logits(inputs: Inputs, neighborhood: Neighborhood) -> Tensor:
    scores = sums.scores(inputs.query, inputs.key, None, None, None, inputs.heads, neighborhood)
    return logits(scores, inputs.bias, inputs.axial, neighborhood)


def _at_taps(axial: Tensor, neighborhood: Neighborhood) -> Tensor:
    """(B, H, W, heads, 2·offsets per axis) → a row's entry plus a column's (B, H, W, heads, K²)."""
    of_rows, of_columns = axial.chunk(2, dim=-1)
    if neighborhood.border == "inside":
        rows, columns = (
            axis_taps(length, neighborhood).offset.to(axial.device) for length in axial.shape[1:3]
        )
        of_rows = of_rows.gather(-1, rows[None, :, None, None].expand(*axial.shape[:-1], -1))
        of_columns = of_columns.gather(-1, columns[None, None, :, None].expand(*axial.shape[:-1], -1))
    return (of_rows[..., :, None] + of_columns[..., None, :]).flatten(-2)


def _by_axis(of_logits: Tensor, neighborhood: Neighborhood) -> Tensor:
    """(B, H, W, heads, K²) → (B, H, W, heads, 2·offsets per axis), the transpose of `_at_taps`."""
    kernel, _, border, _ = neighborhood
    by_tap = of_logits.unflatten(-1, (kernel, kernel))
    sums_of_taps = by_tap.sum(-1), by_tap.sum(-2)
    if border != "inside":
        return torch.cat(sums_of_taps, dim=-1)
    found = []
    for axis, total in enumerate(sums_of_taps):
        offsets = axis_taps(of_logits.shape[1 + axis], neighborhood).offset
        tap = torch.arange(2 * kernel - 1) - offsets[:, :1]  # (length, offsets): the one tap that has it
        tap = (tap[None, :, None, None] if axis == 0 else tap[None, None, :, None]).to(total.device)
        tap = tap.expand(*total.shape[:-1], -1)
        picked = total.gather(-1, tap.clamp(0, kernel - 1))
        found.append(picked.where((tap >= 0) & (tap < kernel), 0))
    return torch.cat(found, dim=-1)


def _by_offset(of_logits: Tensor, bias: Tensor, neighborhood: Neighborhood) -> Tensor:
    """(B, H, W, heads, K²) → (heads, offsets)."""
    _, height, width, heads, _ = of_logits.shape
    found = map_taps(height, width, neighborhood, bias.device)
    by_head = of_logits.sum(0).permute(2, 0, 1, 3).reshape(heads, -1)
    table = by_head.new_zeros(bias.shape).index_add_(1, found.offset.flatten(), by_head)
    return table.to(bias.dtype)
