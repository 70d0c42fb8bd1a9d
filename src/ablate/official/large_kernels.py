"""Tensors of the dilated reparam block."""

from __future__ import annotations

import re

from torch import Tensor, nn

from ablate.official.operators import Place
from ablate.ops.zoo.dilated_reparam import DilatedReparam, DilatedSum


def _sum(operator: nn.Module, name: str, tensor: Tensor) -> dict[str, Tensor] | None:
    """`lk_origin` is the large kernel, `dil_conv_k3_2` the branch of kernel 3 and dilation 2."""
    assert isinstance(operator, DilatedSum)
    match = re.fullmatch(r"(?:(lk_origin|origin_bn)|dil_(conv|bn)_k(\d+)_(\d+))\.(\w+)", name)
    if match is None:
        return None
    origin, kind, kernel, dilation, leaf = match.groups()
    form = operator.forms[0] if origin else (int(kernel), int(dilation))
    if form not in operator.forms:
        return None
    part = "convolutions" if origin == "lk_origin" or kind == "conv" else "norms"
    return {f"{part}.{operator.forms.index(form)}.{leaf}": tensor}


def _block(operator: nn.Module, name: str, tensor: Tensor) -> dict[str, Tensor] | None:
    assert isinstance(operator, DilatedReparam)
    placed = _sum(operator.sum, name, tensor)
    return None if placed is None else {f"sum.{key}": value for key, value in placed.items()}


PLACES: dict[type[nn.Module], Place] = {DilatedReparam: _block}
