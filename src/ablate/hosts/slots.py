"""The common part of all hosts: named slots, a checked plan, a counted filling."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ablate.errors import UserError, unknown
from ablate.ops import Slot
from ablate.ops.registry import OperatorSpec

STRIDED = ("fill", "keep")
SLOT = "ablate_slot"  # attribute of an operator in a host
SHIFT_ORDER, DEFORMABLE = "shift_order", "deformable"
LACKS = {  # settings that only some hosts have: why the others do not, and which ones have it
    SHIFT_ORDER: ("no shifted windows of its own", "a Swin host"),
    DEFORMABLE: ("no convolutions in its blocks that could be deformable", "a ResNet host"),
}


@dataclass(frozen=True)
class PlacedSlot:
    """A slot with its place in the host: stages count from 1, as in the papers."""

    slot: Slot
    stage: int
    path: str  # of the module that the operator replaces, e.g. layers.0.blocks.1.attn


@dataclass(frozen=True)
class HostSpec:
    """A network from timm and where operators go in it.

    Attributes:
        build: timm's own model from its keyword arguments, and `img_size` where timm's takes none.
        slots: every place that an operator can fill, in order, for images of (H, W) pixels.
        fill: put the operator of a registry entry into a slot.
        stages: the last stage with slots.
        image_size: (H, W) of the published model.
        multiple: the sides of an image are multiples of it.
        smallest: the shortest side of an image that leaves every map at least one position.
        dense: gives a feature map for each stage, of any image size, for tasks with an answer per pixel.
        channels_first: feature maps are (B, C, H, W); in channels-last memory format, operators need no
            transposition of them.
        flexible: arguments of a build with which the network sees images of any size.
        settings: arguments of a build that are not timm's and that not every host has.
    """

    name: str
    build: Callable[..., nn.Module]
    slots: Callable[[nn.Module, tuple[int, int]], Iterator[PlacedSlot]]
    fill: Callable[[nn.Module, PlacedSlot, nn.Module, OperatorSpec], None]
    stages: int
    image_size: tuple[int, int]
    multiple: int = 1
    smallest: int = 1
    channels_first: bool = False
    dense: bool = True
    flexible: Mapping[str, Any] = field(default_factory=dict)
    settings: tuple[str, ...] = ()

    def images(self, kwargs: dict[str, Any]) -> tuple[int, int]:
        """(H, W) of the images that a build with these arguments is for."""
        return sides(kwargs.get("img_size", self.image_size))

    def check(self, stages: Sequence[int] | None, strided: str, kwargs: dict[str, Any]) -> None:
        """Refuse stages, a treatment of strided slots and image sizes that the host does not have.

        Raises:
            UserError: what was given and what is possible.
        """
        if strided not in STRIDED:
            raise unknown("host.strided", str(strided), STRIDED)
        self._check_stages(stages)
        for name, (lacks, has) in LACKS.items():
            if name in kwargs and name not in self.settings:
                raise UserError(
                    f"host.{name}={kwargs[name]}: {self.name} has {lacks}", f"leave it out, or use {has}"
                )
        self._check_stages(kwargs.get(DEFORMABLE), DEFORMABLE)
        for name, rate in kwargs.items():
            if name.endswith("_rate") and not (isinstance(rate, (int, float)) and 0 <= rate < 1):
                raise UserError(f"host.{name}={rate!r} is not a rate", "give a number from 0 to below 1")
        height, width = self.images(kwargs)
        if min(height, width) < self.smallest:
            raise UserError(
                f"{self.name} needs images of {self.smallest}×{self.smallest} pixels or more, "
                f"not {height}×{width}: it would halve maps that have one row or column",
                "use a host for small images, e.g. one that ends in _micro",
            )
        if height % self.multiple or width % self.multiple:
            low = [max(self.multiple, side // self.multiple * self.multiple) for side in (height, width)]
            raise UserError(
                f"{self.name} cuts images into patches of {self.multiple}×{self.multiple}; "
                f"{height}×{width} pixels are not a multiple",
                f"use for example {low[0]}×{low[1]}",
            )

    def _check_stages(self, stages: Sequence[int] | None, setting: str = "stages") -> None:
        last = f"stages count from 1 to {self.stages}" if self.stages > 1 else "its slots are in stage 1"
        if isinstance(stages, (int, str)):
            raise UserError(
                f"host.{setting}={stages} is not a list", f"write host.{setting}=[{stages}]; {last}"
            )
        for stage in stages or ():
            if not isinstance(stage, int) or not 1 <= stage <= self.stages:
                raise UserError(
                    f"host.{setting}={list(stages or ())}: {self.name} has no slot in {stage}", last
                )


def operators(model: nn.Module) -> Iterator[tuple[str, nn.Module, Slot]]:
    """Yield the operators in a network's slots, each with its name there and its slot."""
    for name, module in model.named_modules():
        if isinstance(slot := getattr(module, SLOT, None), Slot):
            yield name, module, slot


class ChannelsFirst(nn.Module):
    """An operator instead of a convolution: (B, C, H, W) → (B, C, H', W')."""

    def __init__(self, operator: nn.Module) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        """The operator sees (B, H, W, C), contiguous as in hosts that keep channels last."""
        return self.operator(x.permute(0, 2, 3, 1).contiguous()).permute(0, 3, 1, 2)


def replace(model: nn.Module, placed: PlacedSlot, operator: nn.Module, entry: OperatorSpec) -> None:
    """Put an operator where maps are (B, H, W, C)."""
    model.set_submodule(placed.path, operator)


def replace_channels_first(
    model: nn.Module, placed: PlacedSlot, operator: nn.Module, entry: OperatorSpec
) -> None:
    """Put an operator where maps are (B, C, H, W)."""
    model.set_submodule(placed.path, ChannelsFirst(operator))


def sides(size: int | Sequence[int]) -> tuple[int, int]:
    """(H, W) of an image size as timm writes it, one number for a square."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width
