"""Tensors of focal modulation."""

from __future__ import annotations

from torch import nn

from ablate.official.operators import Place, by_table
from ablate.ops.zoo.focal import FocalModulation

_focal = by_table(
    {
        r"f\.(weight|bias)": r"query_context_gates.\1",
        r"h\.(weight|bias)": r"modulator.\1",
        r"(?:ln|norm)\.(weight|bias)": r"norm.\1",
        r"proj\.(weight|bias)": r"output.\1",
        r"focal_layers\.(\d+)\.0\.weight": r"contexts.\1.weight",
    }
)

PLACES: dict[type[nn.Module], Place] = {FocalModulation: _focal}
