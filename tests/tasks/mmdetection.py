"""Swin and heads of mmdetection and mmsegmentation, written again: their names and their forward."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from tests.hosts.test_shift_order import SIZE, mmdetection
from timm.models.swin_transformer import WindowAttention
from torch import Tensor, nn


class Container(nn.Module):
    """Modules under their names."""

    def __init__(self, **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)


class ConvModule(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, *, norm: bool, relu: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=not norm)
        if norm:
            self.bn = nn.BatchNorm2d(outputs)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = self.bn(x) if hasattr(self, "bn") else x
        return x.relu() if self.relu else x


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, ratio: int, shift: int) -> None:
        super().__init__()
        self.shift = shift
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = Container(w_msa=WindowAttention(dim, num_heads=heads, window_size=SIZE))
        layers = nn.Sequential(nn.Linear(dim, ratio * dim), nn.GELU())
        self.ffn = Container(layers=nn.Sequential(layers, nn.Linear(ratio * dim, dim)))

    def forward(self, x: Tensor) -> Tensor:
        x = x + mmdetection(self.norm1(x), self.attn.w_msa, self.shift)
        return x + self.ffn.layers(self.norm2(x))


class Merging(nn.Module):
    """mmdetection's `nn.Unfold`, or the four slices of Swin's own repository."""

    def __init__(self, dim: int, *, unfold: bool) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False)
        self.unfold = unfold

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        if self.unfold:
            rows, columns = x.shape[1] // 2, x.shape[2] // 2
            x = F.unfold(x.permute(0, 3, 1, 2), 2, stride=2).transpose(1, 2).unflatten(1, (rows, columns))
        else:
            x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.reduction(self.norm(x))


class Swin(nn.Module):
    def __init__(self, dim: int, depths: Sequence[int], heads: Sequence[int], *, unfold: bool) -> None:
        super().__init__()
        self.patch_embed = Container(projection=nn.Conv2d(1, dim, 2, stride=2), norm=nn.LayerNorm(dim))
        self.stages = nn.ModuleList()
        for stage, (depth, count) in enumerate(zip(depths, heads, strict=True)):
            width = dim * 2**stage
            blocks = nn.ModuleList(Block(width, count, 2, SIZE // 2 * (index % 2)) for index in range(depth))
            merging = {"downsample": Merging(width, unfold=unfold)} if stage + 1 < len(depths) else {}
            self.stages.append(Container(blocks=blocks, **merging))
            self.add_module(f"norm{stage}", nn.LayerNorm(width))

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.patch_embed.norm(self.patch_embed.projection(images).permute(0, 2, 3, 1))
        maps = []
        for number, stage in enumerate(self.stages):
            for block in stage.blocks:
                x = block(x)
            maps.append(self.get_submodule(f"norm{number}")(x).permute(0, 3, 1, 2))
            if number + 1 < len(self.stages):
                x = stage.downsample(x)
        return maps


class FPN(nn.Module):
    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        plain = {"norm": False, "relu": False}
        self.lateral_convs = nn.ModuleList(ConvModule(width, channels, 1, **plain) for width in widths)
        self.fpn_convs = nn.ModuleList(ConvModule(channels, channels, 3, **plain) for _ in widths)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        path = [layer(one) for layer, one in zip(self.lateral_convs, maps, strict=True)]
        for number in range(len(path) - 1, 0, -1):
            path[number - 1] = path[number - 1] + F.interpolate(path[number], path[number - 1].shape[2:])
        found = [layer(one) for layer, one in zip(self.fpn_convs, path, strict=True)]
        return [*found, F.max_pool2d(found[-1], 1, stride=2)]


class RPNHead(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rpn_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.rpn_cls, self.rpn_reg = nn.Conv2d(channels, 3, 1), nn.Conv2d(channels, 12, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.rpn_conv(x).relu()
        return self.rpn_cls(x), self.rpn_reg(x)


class BBoxHead(nn.Module):
    """Scores with the background last, and four offsets for each class."""

    def __init__(self, channels: int, hidden: int, convolutions: int, classes: int) -> None:
        super().__init__()
        norm = {"norm": True}
        self.shared_convs = nn.ModuleList(
            ConvModule(channels, channels, 3, **norm) for _ in range(convolutions)
        )
        widths = [channels * 49, hidden] if convolutions else [channels * 49, hidden, hidden]
        self.shared_fcs = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.fc_cls, self.fc_reg = nn.Linear(hidden, classes + 1), nn.Linear(hidden, 4 * classes)
        self.classes = classes

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for layer in self.shared_convs:
            x = layer(x)
        x = x.flatten(1)
        for layer in self.shared_fcs:
            x = layer(x).relu()
        return self.fc_cls(x), self.fc_reg(x)

    def boxes(self, regions: Tensor, offsets: Tensor, spread: Sequence[float]) -> Tensor:
        """`delta2bbox` of every class, not cut off at the image: (n, classes, 4)."""
        moves = offsets.view(-1, self.classes, 4) * torch.tensor(spread)
        size = (regions[:, 2:] - regions[:, :2])[:, None]
        centre = (regions[:, 2:] + regions[:, :2])[:, None] / 2 + moves[..., :2] * size
        half = size * moves[..., 2:].exp() / 2
        return torch.cat([centre - half, centre + half], -1)


class MaskHead(nn.Module):
    def __init__(self, channels: int, convolutions: int, classes: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(ConvModule(channels, channels, 3, norm=False) for _ in range(convolutions))
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.conv_logits = nn.Conv2d(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.convs:
            x = layer(x)
        return self.conv_logits(self.upsample(x).relu())


class UPerHead(nn.Module):
    def __init__(self, widths: Sequence[int], channels: int, pools: Sequence[int], classes: int) -> None:
        super().__init__()
        norm = {"norm": True}
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), ConvModule(widths[-1], channels, 1, **norm))
            for side in pools
        )
        self.bottleneck = ConvModule(widths[-1] + len(pools) * channels, channels, 3, **norm)
        self.lateral_convs = nn.ModuleList(ConvModule(width, channels, 1, **norm) for width in widths[:-1])
        self.fpn_convs = nn.ModuleList(ConvModule(channels, channels, 3, **norm) for _ in widths[:-1])
        self.fpn_bottleneck = ConvModule(len(widths) * channels, channels, 3, **norm)
        self.conv_seg = nn.Conv2d(channels, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        def resized(x: Tensor, like: Tensor) -> Tensor:
            return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)

        last = maps[-1]
        pooled = [resized(layer(last), last) for layer in self.psp_modules]
        path = [layer(one) for layer, one in zip(self.lateral_convs, maps[:-1], strict=True)]
        path.append(self.bottleneck(torch.cat([last, *pooled], 1)))
        for number in range(len(path) - 1, 0, -1):
            path[number - 1] = path[number - 1] + resized(path[number], path[number - 1])
        found = [layer(one) for layer, one in zip(self.fpn_convs, path[:-1], strict=True)] + [path[-1]]
        return self.conv_seg(self.fpn_bottleneck(torch.cat([resized(one, found[0]) for one in found], 1)))


def fcn_head(width: int, channels: int, classes: int) -> Container:
    convs = nn.ModuleList([ConvModule(width, channels, 3, norm=True)])
    return Container(convs=convs, conv_seg=nn.Conv2d(channels, classes, 1))


def as_in_swins_repository(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of Swin's own repository; its merging has the names of mmdetection's and another order."""
    for later, original in (
        (r"^backbone\.stages\.", "backbone.layers."),
        (r"\.attn\.w_msa\.", ".attn."),
        (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
        (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
        (r"\.patch_embed\.projection\.", ".patch_embed.proj."),
    ):
        state = {re.sub(later, original, name): value for name, value in state.items()}
    return state
