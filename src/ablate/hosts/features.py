"""Feature maps of a host, one per stage: what dense tasks are computed from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ablate.errors import UserError
from ablate.hosts.slots import HostSpec

STEMS = ("stem", "act1")  # maps that timm lists before those of the stages


@dataclass(frozen=True)
class Level:
    """One feature map.

    Attributes:
        index: its number among timm's features.
        channels: of the map.
        reduction: pixels of the image per position, along each axis.
    """

    index: int
    channels: int
    reduction: int


def require_dense(host: HostSpec) -> None:
    """Refuse a host without feature maps that a head for pixels could use.

    Raises:
        UserError: names the hosts that have them.
    """
    if not host.dense:
        raise UserError(
            f"host {host.name} gives no feature maps for dense tasks: it runs at one image size",
            "use a Swin, NAT, ResNet or ConvNeXt host",
        )


def levels(host: HostSpec, model: nn.Module) -> list[Level]:
    """Return the maps of a host's stages, the finest first.

    Raises:
        UserError: the host has none, see `require_dense`.
    """
    require_dense(host)
    described: Any = model.feature_info
    return [
        Level(index, entry["num_chs"], entry["reduction"])
        for index, entry in enumerate(described)
        if entry["module"].partition(".")[0] not in STEMS
    ]


class Features(nn.Module):
    """A host without its classifier, and a norm on each of its maps, as ELSA's and Swin's detectors have.

    mmdetection's ResNets have none of these norms.

    Args:
        model: the host.
        found: its levels.
        frozen_stages: that are not trained, from the first; with the stem, and in evaluation mode.
        frozen_norms: batch norms of the host are in evaluation mode, so that their statistics stay; their
            weights are trained.
        map_norms: put a norm on each map.
    """

    def __init__(
        self,
        model: Any,
        found: list[Level],
        *,
        frozen_stages: int = 0,
        frozen_norms: bool = False,
        map_norms: bool = True,
    ) -> None:
        super().__init__()
        self.indices = [level.index for level in found]
        self.frozen_norms = frozen_norms
        trained = [model.feature_info[level.index]["module"] for level in found[frozen_stages:]]
        self._trained = tuple(f"{path}." for path in trained) if frozen_stages else ("",)
        # what is left over would be parameters without a gradient, which DistributedDataParallel refuses
        model.prune_intermediate_layers(self.indices, prune_norm=True, prune_head=True)
        if hasattr(model, "head"):  # ConvNeXt of timm 1.0.22 keeps the norm of its head
            model.head = nn.Identity()
        self.model: Any = model
        self.norms = nn.ModuleList(nn.LayerNorm(level.channels) for level in found if map_norms)
        for name, parameter in self.model.named_parameters():
            if not name.startswith(self._trained):
                parameter.requires_grad_(False)

    def frozen_parameters(self) -> set[str]:
        """Return the names of the parameters that the optimiser must not have."""
        names = (name for name, _ in self.model.named_parameters())
        return {f"model.{name}" for name in names if not name.startswith(self._trained)}

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all that is not frozen."""
        super().train(mode)
        for name, module in self.model.named_modules():
            frozen = name and not f"{name}.".startswith(self._trained)
            if frozen or (self.frozen_norms and isinstance(module, _BatchNorm)):
                module.training = False  # of this module alone: a parent may have parts that are trained
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, C, H, W) → one map (B, channels, H / reduction, W / reduction) for each level."""
        maps: list[Tensor] = self.model.forward_intermediates(
            images, indices=self.indices, intermediates_only=True
        )
        if not self.norms:
            return maps
        return [
            norm(one.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            for norm, one in zip(self.norms, maps, strict=True)
        ]
