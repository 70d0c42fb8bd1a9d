"""Names outside of the operators of a network: from the authors' to timm's present ones."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import nn

COMPUTED = re.compile(r"(^|\.)(relative_position_index|attn_mask|relative_id)$")  # buffers that timm computes
DWNET = (
    (r"^(layers\.\d+\.blocks\.\d+)\.attn2conv\.", r"\1.attn."),
    (r"^(layers\.\d+\.blocks\.\d+)\.bn\.", r"\1.norm2."),
)
REDNET = (
    (r"^backbone\.", ""),
    (r"^head\.fc\.", "fc."),
    (r"^stem\.0\.conv\.", "conv1.0."),
    (r"^stem\.0\.bn\.", "conv1.1."),
    (r"^stem\.1\.", "conv1.3."),
    (r"^stem\.2\.", "conv1.4."),
    (r"^stem\.4\.conv\.", "conv1.6."),
    (r"^stem\.4\.bn\.", "bn1."),
)


def rename(
    module: nn.Module, name: str, shape: tuple[int, ...], own: Mapping[str, tuple[int, ...]]
) -> str | None:
    """An authors' name as timm's class has it today; None for a buffer that is computed.

    Names of operators keep what follows the operator's own path. `own` are the shapes of the
    module's tensors.
    """
    from timm.models.resnet import ResNet
    from timm.models.swin_transformer import SwinTransformer

    if isinstance(module, SwinTransformer):
        return _swin(name, shape, own)
    return _resnet(name, own) if isinstance(module, ResNet) else name


def _swin(name: str, shape: tuple[int, ...], own: Mapping[str, tuple[int, ...]]) -> str | None:
    """Microsoft's layout, shared by ELSA, DWNet and Slide-Swin: merging ends a stage, a plain linear head."""
    if COMPUTED.search(name):
        return None
    for pattern, ours in DWNET:
        name = re.sub(pattern, ours, name)
    if match := re.fullmatch(r"layers\.(\d+)\.downsample\.(.+)", name):
        later = f"layers.{int(match[1]) + 1}.downsample.{match[2]}"
        if own.get(later) == shape:  # timm's own, one stage on, is twice as wide
            return later
    return name if name in own else re.sub(r"^head\.(weight|bias)$", r"head.fc.\1", name)


def _resnet(name: str, own: Mapping[str, tuple[int, ...]]) -> str:
    """RedNet's layout (mmcls); other ResNets have timm's names."""
    if name in own:
        return name
    for pattern, ours in REDNET:
        name = re.sub(pattern, ours, name)
    return name
