"""NAT hosts (Hassani et al., 2023; DiNAT, Hassani & Shi, 2022): slot = a block's neighborhood attention.

timm does not have these networks: the class here is ours, with timm's interface and the parameter names of
the authors' checkpoints, where stages are called levels. Stages have pre-norm blocks of attention and MLP on
maps (B, H, W, C); overlapping convolutions before the first one and between them halve the map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from timm.layers import DropPath, Mlp
from timm.models import checkpoint_seq, register_notrace_module
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from ablate import ops
from ablate.errors import UserError, unknown
from ablate.hosts.slots import HostSpec, PlacedSlot, replace
from ablate.ops import Slot

OWN = "na"  # the operator that the networks have themselves
POOLS = ("avg", "")
PREVIOUS = (99_999,)  # timm's mark of what belongs to the layer before it


class Tokenizer(nn.Module):
    """Two 3×3 convolutions with strides, C/2 and C channels, and layer norm."""

    def __init__(self, in_chans: int, dim: int, strides: tuple[int, int]) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.Conv2d(in_chans, dim // 2, 3, strides[0], padding=1),
            nn.Conv2d(dim // 2, dim, 3, strides[1], padding=1),
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) → (B, H', W', dim): each stride divides a side and rounds up."""
        x: Tensor = self.norm(self.proj(images).permute(0, 2, 3, 1))
        return x


class Downsampler(nn.Module):
    """A 3×3 convolution of stride 2 to twice as many channels, and layer norm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Conv2d(dim, 2 * dim, 3, 2, padding=1, bias=False)
        self.norm = nn.LayerNorm(2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, ⌈H/2⌉, ⌈W/2⌉, 2C)."""
        y: Tensor = self.norm(self.reduction(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return y


class Block(nn.Module):
    """Attention and MLP, each after layer norm and beside a shortcut.

    Args:
        dim: channels.
        heads: of the attention.
        mlp_ratio: width of the MLP's hidden layer over `dim`.
        drop_path: probability that a branch is dropped for an image.
        layer_scale: first value of a learned factor for each channel of a branch; None for no factor.
    """

    gamma1: Tensor | None
    gamma2: Tensor | None

    def __init__(
        self, dim: int, heads: int, mlp_ratio: float, drop_path: float, layer_scale: float | None
    ) -> None:
        super().__init__()
        self.dim, self.heads = dim, heads
        self.norm1 = nn.LayerNorm(dim)
        self.attn = ops.create(OWN, dim, heads=heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = _initialized(Mlp(dim, int(dim * mlp_ratio)))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        for name in ("gamma1", "gamma2"):
            factor = None if layer_scale is None else nn.Parameter(torch.full((dim,), float(layer_scale)))
            self.register_parameter(name, factor)
        register_notrace_module(type(self.attn))  # torch.fx takes an operator whole

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        x = x + self.drop_path(_scaled(self.gamma1, self.attn(self.norm1(x))))
        return x + self.drop_path(_scaled(self.gamma2, self.mlp(self.norm2(x))))


class Stage(nn.Module):
    """Blocks on one size of map; `downsample`, to the next stage, is applied by the network."""

    def __init__(self, blocks: Sequence[Block], downsample: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample
        self.grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C): the map of this stage."""
        y: Tensor = checkpoint_seq(self.blocks, x) if self.grad_checkpointing else self.blocks(x)
        return y


class NAT(nn.Module):
    """Neighborhood Attention Transformer, with timm's interface.

    Args:
        num_classes: 0 for none.
        in_chans: channels of the images.
        global_pool: `avg`, the mean over the map, or empty for a class at each position.
        embed_dim: channels of the first stage, which double from stage to stage.
        depths: blocks of each stage.
        head_width: channels of a head.
        mlp_ratio: width of the MLPs' hidden layer over their channels.
        layer_scale: first value of a learned factor for each channel of a branch; None for no factor.
        drop_path_rate: of the last block; it grows linearly from 0 in the first.
        stem_strides: of the two convolutions of the stem.

    Raises:
        UserError: another `global_pool`, channels that the heads do not divide.
    """

    def __init__(  # noqa: PLR0913 (timm's interface: a keyword for each setting)
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        embed_dim: int = 64,
        depths: Sequence[int] = (3, 4, 18, 5),
        head_width: int = 32,
        mlp_ratio: float = 3.0,
        layer_scale: float | None = None,
        drop_path_rate: float = 0.0,
        stem_strides: tuple[int, int] = (2, 2),
    ) -> None:
        super().__init__()
        if embed_dim % head_width:
            raise UserError(
                f"{embed_dim} channels cannot be divided into heads of {head_width}",
                "use a multiple of host.head_width for host.embed_dim",
            )
        self.in_chans, self.output_fmt = in_chans, "NHWC"
        self.patch_embed = Tokenizer(in_chans, embed_dim, stem_strides)
        rates = iter(_growing(drop_path_rate, sum(depths)))
        self.levels: Any = nn.ModuleList()
        self.feature_info: list[dict[str, Any]] = []
        for index, depth in enumerate(depths):
            dim, last = embed_dim * 2**index, index == len(depths) - 1
            blocks = [
                Block(dim, dim // head_width, mlp_ratio, next(rates), layer_scale) for _ in range(depth)
            ]
            self.levels.append(Stage(blocks, nn.Identity() if last else Downsampler(dim)))
            reduction = math.prod(stem_strides) * 2**index
            self.feature_info.append({"num_chs": dim, "reduction": reduction, "module": f"levels.{index}"})
        self.num_features = self.head_hidden_size = dim
        self.norm: nn.Module = nn.LayerNorm(dim)
        self.head: nn.Module = nn.Identity()
        self.reset_classifier(num_classes, global_pool)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that operators exclude from weight decay: tables of position biases."""
        return {
            f"{path}.{name}"
            for path, module in self.named_modules()
            if path and callable(names := getattr(module, "no_weight_decay", None))
            for name in names()
        }

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return patterns of timm's groups of layers: the stem, and each block with what follows it.

        Args:
            coarse: one group for each stage.
        """
        blocks = [
            (r"^levels\.(\d+)\.blocks\.(\d+)", None),
            (r"^levels\.(\d+)\.downsample", PREVIOUS),
            (r"^norm", PREVIOUS),
        ]
        return {"stem": r"^patch_embed", "blocks": r"^levels\.(\d+)" if coarse else blocks}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute every block again in the backward pass, in place of keeping what is within it."""
        for stage in self.levels:
            stage.grad_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        """Return the linear layer of the classes."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Draw a classifier for other classes.

        Args:
            num_classes: 0 for none.
            global_pool: `avg` or empty; None leaves it as it is.

        Raises:
            UserError: another `global_pool`.
        """
        if global_pool is not None:
            if global_pool not in POOLS:
                raise unknown("global_pool", str(global_pool), POOLS)
            self.global_pool = global_pool
        self.num_classes = num_classes
        like = next(self.parameters())
        linear = partial(nn.Linear, self.num_features, num_classes, device=like.device, dtype=like.dtype)
        self.head = _initialized(linear()) if num_classes else nn.Identity()

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Compute the maps of stages before they are downsampled; arguments and result are those of timm.

        Args:
            x: (B, C, H, W).
            indices: of the stages, from 0; the last so many, or all if None.
            norm: apply the last layer norm to the last stage's map.
            stop_early: compute no later stage.
            output_fmt: NCHW, the only one.
            intermediates_only: return the maps alone, not the last of them and all.
        """
        assert output_fmt == "NCHW", "the maps are NCHW"
        taken, last = feature_take_indices(len(self.levels), indices)
        maps, end = [], len(self.levels) - 1
        x = self.patch_embed(x)
        for index, stage in enumerate(self.levels[: last + 1] if stop_early else self.levels):
            x = stage(x)
            if index in taken:
                found = self.norm(x) if norm and index == end else x
                maps.append(found.permute(0, 3, 1, 2).contiguous())
            x = stage.downsample(x)
        if intermediates_only:
            return maps
        return (self.norm(x) if index == end else x), maps

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove what the maps of some stages do not need; arguments and result are those of timm.

        Args:
            indices: of the stages, from 0; the last so many.
            prune_norm: remove the last layer norm.
            prune_head: remove the classifier.
        """
        taken, last = feature_take_indices(len(self.levels), indices)
        ends = last < len(self.levels) - 1
        self.levels = self.levels[: last + 1]
        if ends:
            self.levels[-1].downsample = nn.Identity()
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
        if prune_norm or ends:
            self.norm = nn.Identity()
        if prune_head or ends:
            self.reset_classifier(0, "")
        return taken

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, H', W', num_features), after the last layer norm."""
        x = self.patch_embed(x)
        for stage in self.levels:
            x = stage.downsample(stage(x))
        y: Tensor = self.norm(x)
        return y

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, H', W', num_features) → (B, num_classes), or what the classifier sees with `pre_logits`."""
        x = x.mean((1, 2)) if self.global_pool else x
        y: Tensor = x if pre_logits else self.head(x)
        return y

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, num_classes)."""
        return self.forward_head(self.forward_features(x))


def _initialized(module: nn.Module) -> nn.Module:
    """Draw linear layers as NAT does: truncated normal with σ = 0.02, and zero biases."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            nn.init.zeros_(part.bias)
    return module


def _scaled(factor: Tensor | None, x: Tensor) -> Tensor:
    return x if factor is None else factor * x


def _growing(last: float, count: int) -> list[float]:
    """Return `count` rates from 0 to `last`, equally far apart."""
    return [last * index / max(count - 1, 1) for index in range(count)]


def slots(model: nn.Module, images: tuple[int, int]) -> Iterator[PlacedSlot]:
    """Every block's attention; every convolution with a stride rounds the sides of its map up."""
    assert isinstance(model, NAT)
    for number, (info, stage) in enumerate(zip(model.feature_info, model.levels, strict=True)):
        resolution = (-(-images[0] // info["reduction"]), -(-images[1] // info["reduction"]))
        for index, block in enumerate(stage.blocks):
            slot = Slot(block.dim, block.heads, resolution, index=index)
            yield PlacedSlot(slot, number + 1, f"levels.{number}.blocks.{index}.attn")


SMALLER: dict[str, Any] = {"embed_dim": 64, "mlp_ratio": 3.0, "drop_path_rate": 0.2}
LARGER: dict[str, Any] = {"mlp_ratio": 2.0, "layer_scale": 1e-5}
SIZES: dict[str, dict[str, Any]] = {
    "mini": {**SMALLER, "depths": (3, 4, 6, 5)},
    "tiny": SMALLER,
    "small": {**LARGER, "embed_dim": 96, "drop_path_rate": 0.3},
    "base": {**LARGER, "embed_dim": 128, "drop_path_rate": 0.5},
}
MICRO = {"embed_dim": 32, "depths": (2, 1), "head_width": 16, "mlp_ratio": 2.0, "stem_strides": (2, 1)}


def _build(settings: dict[str, Any]) -> Callable[..., nn.Module]:
    def build(img_size: Any = None, **kwargs: Any) -> nn.Module:
        return NAT(**{**settings, **kwargs})

    return build


def specs() -> list[HostSpec]:
    """The NAT hosts."""
    published = [
        HostSpec(
            name=f"nat_{size}",
            build=_build(settings),
            slots=slots,
            fill=replace,
            stages=4,
            image_size=(224, 224),
        )
        for size, settings in SIZES.items()
    ]
    micro = HostSpec(
        name="nat_micro",
        build=_build(MICRO),
        slots=slots,
        fill=replace,
        stages=2,
        image_size=(28, 28),
    )
    return [*published, micro]
