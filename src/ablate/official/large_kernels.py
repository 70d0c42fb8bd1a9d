"""Tensors of the dilated reparam block and of ContMix, which has one."""

from __future__ import annotations

import re

from torch import Tensor, nn

from ablate.official.operators import Place, by_table
from ablate.ops.zoo.contmix import ContMix
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


_contmix_renamed = by_table(
    {
        rf"{theirs}\.{layer}\.(\w+)": rf"{ours}.{part}.\1"
        for ours, theirs, first in (
            ("query", "weight_query", 0),
            ("key", "weight_key", 1),  # after the pooling
            ("value", "weight_value", 0),
            ("fusion", "fusion_proj", 0),
            ("gate", "gate", 0),
        )
        for layer, part in ((first, "linear"), (first + 1, "norm"))
    }
    | {
        r"weight_proj\.(weight|bias)": r"taps.\1",
        r"lepe\.1\.(\w+)": r"surround_norm.\1",
        r"se_layer\.proj\.1\.(weight|bias)": r"excitation.reduce.\1",
        r"se_layer\.proj\.3\.(weight|bias)": r"excitation.expand.\1",
        r"proj\.0\.(\w+)": r"norm.\1",
        r"proj\.1\.(weight|bias)": r"output.\1",
    }
)


def _contmix(operator: nn.Module, name: str, tensor: Tensor) -> dict[str, Tensor] | None:
    """`lepe.0` is the large depthwise convolution, `rpb1` the table of the small filters."""
    assert isinstance(operator, ContMix)
    if name.startswith("lepe.0."):
        placed = _sum(operator.surround, name.removeprefix("lepe.0."), tensor)
        return None if placed is None else {f"surround.{key}": value for key, value in placed.items()}
    if match := re.fullmatch(r"rpb([12])", name):
        return {f"biases.{int(match[1]) - 1}": tensor.flatten(1)}
    return _contmix_renamed(operator, name, tensor)


PLACES: dict[type[nn.Module], Place] = {DilatedReparam: _block, ContMix: _contmix}
