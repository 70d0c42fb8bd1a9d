"""Tensors of DCNv3 and DCNv4, whose taps are counted column by column and whose offsets are (x, y)."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from ablate.official.operators import Place, by_table
from ablate.ops.zoo.dcn import DCNv3, DCNv4, Sampling

_renamed = by_table(
    {
        r"(?:input|value)_proj\.(weight|bias)": r"value.\1",
        r"output_proj\.(weight|bias)": r"output.\1",
        r"dw_conv\.0\.(weight|bias)": r"surround.\1",
        r"dw_conv\.1\.1\.(weight|bias)": r"norm.\1",
        r"offset_mask_dw\.(weight|bias)": r"surround.\1",
        r"center_feature_scale_proj_(weight|bias)": r"centre.gate.\1",
    }
)


def _dcnv3(operator: nn.Module, name: str, tensor: Tensor) -> dict[str, Tensor] | None:
    assert isinstance(operator, DCNv3)
    if match := re.fullmatch(r"offset\.(weight|bias)", name):
        return {f"offsets.{match[1]}": _offsets(operator, tensor.unflatten(0, (operator.heads, -1)))}
    if match := re.fullmatch(r"mask\.(weight|bias)", name):
        return {f"weights.{match[1]}": _weights(operator, tensor.unflatten(0, (operator.heads, -1)))}
    return _renamed(operator, name, tensor)


def _dcnv4(operator: nn.Module, name: str, tensor: Tensor) -> dict[str, Tensor] | None:
    """`offset_mask` has the offsets and then the weights of one group after another, and surplus rows."""
    assert isinstance(operator, DCNv4)
    if match := re.fullmatch(r"offset_mask\.(weight|bias)", name):
        by_group = tensor[: operator.generated].unflatten(0, (operator.heads, -1))
        offsets, weights = by_group.split([2 * operator.taps, operator.taps], 1)
        parts = [
            part(operator, rows).unflatten(0, (operator.heads, -1))
            for part, rows in ((_offsets, offsets), (_weights, weights))
        ]
        ours = torch.cat([torch.cat(parts, 1).flatten(0, 1), tensor[operator.generated :]])
        return {f"offsets_weights.{match[1]}": ours}
    return _renamed(operator, name, tensor)


def _offsets(operator: Sampling, rows: Tensor) -> Tensor:
    """(G, 2·K², …) → (G·K²·2, …): taps row by row, (y, x)."""
    by_tap = rows.unflatten(1, (operator.kernel, operator.kernel, 2))
    return by_tap.transpose(1, 2).flip(3).flatten(0, 3)


def _weights(operator: Sampling, rows: Tensor) -> Tensor:
    """(G, K², …) → (G·K², …): taps row by row."""
    return rows.unflatten(1, (operator.kernel, operator.kernel)).transpose(1, 2).flatten(0, 2)


PLACES: dict[type[nn.Module], Place] = {DCNv3: _dcnv3, DCNv4: _dcnv4}
