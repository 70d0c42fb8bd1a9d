"""Swin Transformer hosts (Liu et al., 2021): timm's class, slot = a block's window attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import timm
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from torch import Tensor, nn
from torch.nn.functional import pad

from ablate.errors import unknown
from ablate.hosts.slots import SHIFT_ORDER, HostSpec, PlacedSlot
from ablate.ops import Slot
from ablate.ops.registry import OperatorSpec
from ablate.ops.slot import PAD_THEN_ROLL, ROLL_THEN_PAD, SHIFT_ORDERS

FLEXIBLE = {"strict_img_size": False}


class PadThenRollBlock(SwinTransformerBlock):
    """timm's block for maps that are filled up before they are rolled, as in mmdetection's Swin.

    It is built with `always_partition=True`, by which a map of one window is shifted too.
    """

    def _attn(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C): timm's own on a map that windows tile."""
        height, width = x.shape[1:3]
        rows, columns = self.window_size
        y: Tensor = super()._attn(pad(x, (0, 0, 0, -width % columns, 0, -height % rows)))
        return y[:, :height, :width]


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
            order = PAD_THEN_ROLL if isinstance(block, PadThenRollBlock) else ROLL_THEN_PAD
            slot = Slot(block.dim, block.attn.num_heads, (height, width), index=index, shift_order=order)
            yield PlacedSlot(slot, stage + 1, f"layers.{stage}.blocks.{index}.attn")


def fill(model: nn.Module, placed: PlacedSlot, operator: nn.Module, entry: OperatorSpec) -> None:
    """Rebuild the slot's block around the operator."""
    path = placed.path.removesuffix(".attn")
    model.set_submodule(path, OperatorBlock(model.get_submodule(path), operator))


def _published(variant: str) -> Callable[..., nn.Module]:
    def build(shift_order: str = ROLL_THEN_PAD, **kwargs: Any) -> nn.Module:
        settings = _order_settings(shift_order) | kwargs
        model = timm.create_model(f"swin_{variant}_patch4_window7_224", pretrained=False, **settings)
        return _with_shift_order(model, shift_order)

    return build


def _micro(shift_order: str = ROLL_THEN_PAD, **kwargs: Any) -> nn.Module:
    settings = _order_settings(shift_order) | {
        "img_size": 28,
        "patch_size": 2,
        "embed_dim": 32,
        "depths": (2, 1),
        "num_heads": (2, 4),
        "window_size": 7,
        "mlp_ratio": 2.0,
        "drop_path_rate": 0.0,
    }
    return _with_shift_order(SwinTransformer(**{**settings, **kwargs}), shift_order)


def _order_settings(shift_order: str) -> dict[str, Any]:
    """Return timm's settings for an order of shifting and filling up.

    Raises:
        UserError: an unknown order.
    """
    if shift_order not in SHIFT_ORDERS:
        raise unknown("host.shift_order", str(shift_order), SHIFT_ORDERS)
    return {"always_partition": True} if shift_order == PAD_THEN_ROLL else {}


def _with_shift_order(model: SwinTransformer, shift_order: str) -> SwinTransformer:
    """Let every block fill up its map before it rolls it, if that is the order."""
    if shift_order == PAD_THEN_ROLL:
        for layer in model.layers:
            for block in layer.blocks:
                block.__class__ = PadThenRollBlock  # timm has no argument for the class of its blocks
    return model


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
            settings=(SHIFT_ORDER,),
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
        settings=(SHIFT_ORDER,),
    )
    return [*published, micro]
