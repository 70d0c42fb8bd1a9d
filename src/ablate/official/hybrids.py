"""Tensors of the parts around operators: DWNet's block operator, ELSA-Swin's window attention."""

from __future__ import annotations

import re

import torch
from timm.models.swin_transformer import WindowAttention
from torch import Tensor, nn

from ablate.models.dwnet import DWNetAttention
from ablate.official.models import COMPUTED
from ablate.official.operators import Place, by_table, place_of

_around = by_table(
    {
        r"conv0\.weight": "expand.weight",
        r"bn0\.(\w+)": r"norm1.\1",
        r"bn\.(\w+)": r"norm2.\1",
        r"conv2\.weight": "project.weight",
        r"bn2\.(\w+)": r"norm3.\1",
    }
)


def _dwnet(attention: nn.Module, name: str, tensor: Tensor) -> dict[str, Tensor] | None:
    """`conv` is the operator."""
    assert isinstance(attention, DWNetAttention)
    if not name.startswith("conv."):
        return _around(attention, name, tensor)
    place = place_of(attention.operator)
    placed = place(attention.operator, name.removeprefix("conv."), tensor) if place else None
    return None if placed is None else {f"operator.{key}": value for key, value in placed.items()}


def _window(attention: nn.Module, name: str, tensor: Tensor) -> dict[str, Tensor] | None:
    """timm's own names as they are; ELSA-Swin's are value, query, key, and biases (heads, key − query)."""
    if match := re.fullmatch(r"pre_proj\.(weight|bias)", name):
        value, query, key = tensor.chunk(3)
        return {f"qkv.{match[1]}": torch.cat([query, key, value])}
    if match := re.fullmatch(r"post_proj\.(weight|bias)", name):
        return {f"proj.{match[1]}": tensor}
    if COMPUTED.search(name):
        return {}
    if name == "rb":
        return {"relative_position_bias_table": torch.flip(tensor, [1]).T.contiguous()}
    return {name: tensor}


PLACES: dict[type[nn.Module], Place] = {DWNetAttention: _dwnet, WindowAttention: _window}
