"""Settings of `conf/task/detection.yaml` and of the published detectors beside it."""

from __future__ import annotations

from dataclasses import dataclass

from ablate.data.options import require_between, require_whole
from ablate.errors import UserError

MOST_STAGES = 3


@dataclass(frozen=True)
class Settings:
    """See `conf/task/detection.yaml`; `weights` is the digest of what `init` names.

    `map_norms` puts a norm on each of the host's maps.
    """

    name: str
    channels: int
    anchor: float
    proposals: int
    training_proposals: int
    sampled_anchors: int
    sampled_regions: int
    smooth_proposals: bool
    thresholds: tuple[float, ...]
    hidden: int
    convolutions: int
    overlap_loss: bool
    masks: bool
    mask_convolutions: int
    init: str | None = None
    weights: str | None = None
    map_norms: bool = True

    def __post_init__(self) -> None:
        for name in (
            "channels",
            "proposals",
            "training_proposals",
            "sampled_anchors",
            "sampled_regions",
            "hidden",
        ):
            require_whole(f"task.{name}", getattr(self, name), at_least=1)
        for name in ("convolutions", "mask_convolutions"):
            require_whole(f"task.{name}", getattr(self, name), at_least=0)
        require_between("task.anchor", self.anchor, 0.1, 1000)
        if not 1 <= len(self.thresholds) <= MOST_STAGES:
            raise UserError(
                f"task.thresholds has {len(self.thresholds)} numbers",
                f"give one for Mask R-CNN, or up to {MOST_STAGES} for a cascade",
            )
        for threshold in self.thresholds:
            require_between("task.thresholds", threshold, 0.01, 0.99)
