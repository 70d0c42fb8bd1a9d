"""The class of all levels of `op/weights`: settings, what they refuse, and the generator that they build."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ablate.ops.axes.regions import Region, RegionConfig
from ablate.ops.slot import Slot


@dataclass(frozen=True)
class WeightsConfig(ABC):
    """Settings of a level of the weights; the fields of a subclass are its settings.

    Attributes:
        pointwise: a weight is made of the features of one position, or of two; not of what is around them
            or of statistics.
    """

    name: str
    pointwise: ClassVar[bool] = False

    @property
    def at_keys(self) -> tuple[str, ...]:
        """Parts of the weights that need the key at each tap."""
        return ()

    def check_values(self) -> None:  # noqa: B027 - most levels refuse nothing
        """Refuse values that no slot could take.

        Raises:
            UserError: names the setting.
        """

    def check(self, region: RegionConfig, slot: Slot) -> None:  # noqa: B027
        """Refuse weights that cannot exist over a region in a slot.

        Raises:
            UserError: with the reason.
        """

    @abstractmethod
    def build(self, slot: Slot, heads: int, region: Region) -> nn.Module:
        """Build the generator of checked settings."""
