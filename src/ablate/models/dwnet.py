"""DWNet (Han et al., 2022): depthwise convolutions, static or dynamic, between 1×1 convolutions in a Swin."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from timm.models import register_notrace_module
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from ablate import hosts, ops
from ablate.models.hybrid import Hybrid, operator
from ablate.models.swin import FEATURES, like

ABOUT = (
    "{title} (Han et al., 2022): every block of Swin-{variant} has {operator} between 1×1 convolutions "
    "with batch norm instead of window attention, and batch norm before its MLP."
)
FAMILIES = {
    "dwnet": ("dwconv", "DWNet", "a 7×7 depthwise convolution"),
    "d_dwnet": ("d_dwconv", "D-DWNet", "a depthwise convolution with one 7×7 filter per channel and image"),
    "i_d_dwnet": ("i_d_dwconv", "I-D-DWNet", "32 filters of 7×7 per position"),
}


@register_notrace_module
class BatchNorm(nn.BatchNorm1d):
    """Over the last dimension of maps (B, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        return super().forward(x.flatten(0, -2)).view(x.shape)


class DWNetAttention(nn.Module):
    """1×1 convolution, the operator and 1×1 convolution, each with batch norm, ReLU between them."""

    def __init__(self, dim: int, operator: nn.Module) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, dim, bias=False)
        self.norm1 = BatchNorm(dim)
        self.operator = operator
        self.norm2 = BatchNorm(dim)
        self.project = nn.Linear(dim, dim, bias=False)
        self.norm3 = BatchNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        x = self.norm1(self.expand(x)).relu()
        return self.norm3(self.project(self.norm2(self.operator(x)).relu()))


class DWNetBlock(nn.Module):
    """A Swin block without its first norm, with batch norm for its second."""

    def __init__(self, block: SwinTransformerBlock, operator: nn.Module) -> None:
        super().__init__()
        self.attn = DWNetAttention(block.dim, operator)
        self.drop_path1 = block.drop_path1
        self.norm2 = BatchNorm(block.dim)
        self.mlp = block.mlp
        self.drop_path2 = block.drop_path2

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        x = x + self.drop_path1(self.attn(x))
        return x + self.drop_path2(self.mlp(self.norm2(x)))

    def set_input_size(self, *_: Any, **__: Any) -> None:
        """Any map will do."""


def hybrids() -> list[Hybrid]:
    """The three families in two sizes."""
    return [
        Hybrid(
            f"{family}_{variant}",
            like(variant),
            partial(_build, variant, name),
            ABOUT.format(title=title, variant=variant, operator=description),
            FEATURES,
        )
        for family, (name, title, description) in FAMILIES.items()
        for variant in ("tiny", "base")
    ]


def _build(variant: str, name: str, op: Mapping[str, Any] | None = None, **kwargs: Any) -> nn.Module:
    """Every stage, the last one too."""
    host = hosts.spec(f"swin_{variant}")
    model = hosts.create(host.name, None, **kwargs)
    config = operator(name, op)
    for placed in list(host.slots(model, host.images(kwargs))):
        part = ops.from_config(config, placed.slot)
        path = placed.path.removesuffix(".attn")
        model.set_submodule(path, DWNetBlock(model.get_submodule(path), part))
    return model
