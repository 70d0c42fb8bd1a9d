"""What surrounds operators in a whole network: the authors' names to timm's present ones."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn


def rename(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names outside the operators as timm's classes have them today; buffers that timm computes left out."""
    from timm.models.swin_transformer import SwinTransformer

    return _swin(tensors) if isinstance(module, SwinTransformer) else dict(tensors)


def _swin(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Microsoft's layout, shared by ELSA, DWNet and Slide-Swin: merging ends a stage, a plain linear head."""
    renamed: dict[str, Tensor] = {}
    early = any(name.startswith("layers.0.downsample.") for name in tensors)
    for name, tensor in tensors.items():
        if re.search(r"\.(relative_position_index|attn_mask|relative_id)$", name):
            continue
        name = re.sub(r"^(layers\.\d+\.blocks\.\d+)\.attn2conv\.", r"\1.attn.", name)  # DWNet
        name = re.sub(r"^(layers\.\d+\.blocks\.\d+)\.bn\.", r"\1.norm2.", name)
        if early:
            name = re.sub(r"^layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) + 1}.downsample", name)
            name = re.sub(r"^head\.(weight|bias)$", r"head.fc.\1", name)
        renamed[name] = tensor
    return renamed
