"""LESA's tensors: its classification and its detection form."""

from __future__ import annotations

import re

from torch import Tensor, nn

from ablate.official.operators import Place, by_table
from ablate.ops.zoo.lesa import LESA

_renamed = by_table(
    {
        r"qkv_transform\.weight": "binary.query_key_value.weight",
        r"bn_qkv\.(\w+)": r"binary.norm.\1",
        r"bn_similarity\.(\w+)": r"binary.similarity_norm.\1",
        r"bn_output\.(\w+)": r"binary.output_norm.\1",
        "relative": "binary.position.relative",
        "rel_height": "binary.position.rows",
        "rel_width": "binary.position.columns",
        r"x_transform\.0\.weight": "unary.spatial.weight",
        r"x_transform\.0\.conv_offset\.(weight|bias)": r"unary.spatial.conv_offset.\1",
        r"x_transform\.1\.weight": "unary.mix.weight",
        r"bn_x\.(\w+)": r"unary.norm.\1",
        r"reasoning\.([12])\.(\w+)": r"fusion.gate.\1.\2",
        r"projection\.0\.weight": "fusion.gate.4.weight",
        r"projection\.1\.(\w+)": r"fusion.gate.5.\1",
    }
)


def _lesa(operator: nn.Module, name: str, tensor: Tensor) -> dict[str, Tensor] | None:
    """`flatten_index` is computed."""
    if name == "flatten_index":
        return {}
    if re.fullmatch(r"qkv_transform\.weight", name):
        tensor = tensor.squeeze(-1)  # a one-dimensional convolution of width 1
    return _renamed(operator, name, tensor)


PLACES: dict[type[nn.Module], Place] = {LESA: _lesa}
