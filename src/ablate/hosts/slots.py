"""What every host has in common: named slots, a checked plan, a counted filling."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ablate.errors import UserError
from ablate.ops import Slot


@dataclass(frozen=True)
class PlacedSlot:
    """A slot with its place in the host: stages count from 1, as in the papers."""

    slot: Slot
    stage: int
    path: str  # of the module that a filling replaces, e.g. layers.0.blocks.1


@dataclass(frozen=True)
class HostSpec:
    """A network from timm and where operators go in it.

    Attributes:
        build: timm's own model from its keyword arguments.
        slots: every place that an operator can fill, in order.
        fill: put an operator into the module at a slot's path.
        stages: number of stages.
        image_size: (H, W) of the published model.
        multiple: the sides of an image are multiples of it.
    """

    name: str
    build: Callable[..., nn.Module]
    slots: Callable[[nn.Module], Iterator[PlacedSlot]]
    fill: Callable[[nn.Module, nn.Module], nn.Module]
    stages: int
    image_size: tuple[int, int]
    multiple: int

    def check(self, stages: Sequence[int] | None, kwargs: dict[str, Any]) -> None:
        """Refuse stages and image sizes that the host does not have.

        Raises:
            UserError: what was given and what is possible.
        """
        for stage in stages or ():
            if not isinstance(stage, int) or not 1 <= stage <= self.stages:
                raise UserError(
                    f"host.stages={list(stages or ())}: {self.name} has no stage {stage}",
                    f"stages count from 1 to {self.stages}",
                )
        size = kwargs.get("img_size", self.image_size)
        sides = (size, size) if isinstance(size, int) else tuple(size)
        if any(side < 1 or side % self.multiple for side in sides):
            low = [max(self.multiple, side // self.multiple * self.multiple) for side in sides]
            raise UserError(
                f"{self.name} cuts images into patches of {self.multiple}×{self.multiple}; "
                f"{sides[0]}×{sides[1]} pixels are not a multiple",
                f"use for example {low[0]}×{low[1]}",
            )
