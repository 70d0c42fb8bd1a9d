"""Swin Transformer hosts (Liu et al., 2021): timm's class, slot = a block's window attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import timm
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from torch import Tensor, nn

from ablate.hosts.slots import HostSpec, PlacedSlot
from ablate.ops import Slot
from ablate.ops.registry import OperatorSpec

FLEXIBLE = {"strict_img_size": False}


class OperatorBlock(nn.Module):
    """A Swin block with an operator instead of shifted-window attention.

    timm's block partitions and shifts in its own method around `attn`; here the operator sees the
    whole map. Everything else is the given block's own modules under their own names.
    """

    def __init__(self, block: SwinTransformerBlock, operator: nn.Module) -> None:
        super().__init__()
        self.norm1 = block.norm1
        self.attn = operator
        self.drop_path1 = block.drop_path1
        self.norm2 = block.norm2
        self.mlp = block.mlp
        self.drop_path2 = block.drop_path2
        self.input_resolution = block.input_resolution

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        x = x + self.drop_path1(self.attn(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))

    def set_input_size(
        self, feat_size: tuple[int, int], window_size: Any, always_partition: Any = None
    ) -> None:
        """timm asks every block to follow another image size.

        An operator keeps its own window or kernel; one that is bound to a map refuses another map
        itself when it sees it.
        """
        self.input_resolution = feat_size


def slots(model: nn.Module, images: tuple[int, int]) -> Iterator[PlacedSlot]:
    """Every block's attention.

    Merging patches pads odd maps. Blocks of timm before 1.0.31 record what is left of the map without that.
    """
    assert isinstance(model, SwinTransformer)
    height, width = model.patch_embed.grid_size
    for stage, layer in enumerate(model.layers):
        if stage:
            height, width = -(-height // 2), -(-width // 2)
        for index, block in enumerate(layer.blocks):
            slot = Slot(block.dim, block.attn.num_heads, (height, width), index=index)
            yield PlacedSlot(slot, stage + 1, f"layers.{stage}.blocks.{index}.attn")


def fill(model: nn.Module, placed: PlacedSlot, operator: nn.Module, entry: OperatorSpec) -> None:
    """Rebuild the slot's block around the operator."""
    path = placed.path.removesuffix(".attn")
    model.set_submodule(path, OperatorBlock(model.get_submodule(path), operator))


def _published(variant: str) -> Callable[..., nn.Module]:
    return lambda **kwargs: timm.create_model(
        f"swin_{variant}_patch4_window7_224", pretrained=False, **kwargs
    )


def _micro(**kwargs: Any) -> nn.Module:
    settings = {
        "img_size": 28,
        "patch_size": 2,
        "embed_dim": 32,
        "depths": (2, 1),
        "num_heads": (2, 4),
        "window_size": 7,
        "mlp_ratio": 2.0,
        "drop_path_rate": 0.0,
    }
    return SwinTransformer(**{**settings, **kwargs})


def specs() -> list[HostSpec]:
    """The Swin hosts."""
    published = [
        HostSpec(
            name=f"swin_{variant}",
            build=_published(variant),
            slots=slots,
            fill=fill,
            stages=4,
            image_size=(224, 224),
            multiple=4,
            flexible=FLEXIBLE,
        )
        for variant in ("tiny", "small", "base")
    ]
    micro = HostSpec(
        name="swin_micro",
        build=_micro,
        slots=slots,
        fill=fill,
        stages=2,
        image_size=(28, 28),
        multiple=2,
        flexible=FLEXIBLE,
    )
    return [*published, micro]
