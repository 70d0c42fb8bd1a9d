"""NAT's networks as their authors' checkpoints name them, written out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from tests.ops.definition import sliding
from torch import Tensor

Shapes = Iterator[tuple[str, tuple[int, ...]]]

DEPTHS, DIM, HEAD_WIDTH, RATIO, KERNEL = (2, 3), 16, 8, 2, 3
HOST = {  # settings of nat_micro
    "depths": [*DEPTHS],
    "embed_dim": DIM,
    "head_width": HEAD_WIDTH,
    "mlp_ratio": RATIO,
    "stem_strides": [2, 2],
}


def layer(name: str, *weight: int, bias: bool = True) -> Shapes:
    """Yield the parameters of a layer."""
    yield f"{name}.weight", weight
    if bias:
        yield f"{name}.bias", weight[:1]


def shapes(channels: int, *, scaled: bool = False) -> Shapes:
    """Names and shapes of what a small NAT has before its last norm, for images of so many channels."""
    yield from layer("patch_embed.proj.0", DIM // 2, channels, 3, 3)
    yield from layer("patch_embed.proj.1", DIM, DIM // 2, 3, 3)
    yield from layer("patch_embed.norm", DIM)
    for level, depth in enumerate(DEPTHS):
        dim = DIM * 2**level
        for index in range(depth):
            block = f"levels.{level}.blocks.{index}"
            yield from layer(f"{block}.norm1", dim)
            yield f"{block}.attn.rpb", (dim // HEAD_WIDTH, 2 * KERNEL - 1, 2 * KERNEL - 1)
            yield from layer(f"{block}.attn.qkv", 3 * dim, dim)
            yield from layer(f"{block}.attn.proj", dim, dim)
            yield from layer(f"{block}.norm2", dim)
            yield from layer(f"{block}.mlp.fc1", RATIO * dim, dim)
            yield from layer(f"{block}.mlp.fc2", dim, RATIO * dim)
            yield from ((f"{block}.gamma{branch}", (dim,)) for branch in (1, 2) if scaled)
        if level < len(DEPTHS) - 1:
            yield from layer(f"levels.{level}.downsample.reduction", 2 * dim, dim, 3, 3, bias=False)
            yield from layer(f"levels.{level}.downsample.norm", 2 * dim)


def drawn(found: Iterable[tuple[str, tuple[int, ...]]]) -> dict[str, Tensor]:
    """Weights that make every part of the network count."""
    draw = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=draw) * 0.3 for name, shape in found}


def linear(weights: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    """x Wᵀ + b."""
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def norm(weights: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Layer norm of the last dimension."""
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def halved(weights: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    """A 3×3 convolution of stride 2, of a map (B, C, H, W)."""
    return F.conv2d(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"), stride=2, padding=1)


def attention(weights: Mapping[str, Tensor], name: str, x: Tensor, dilation: int) -> Tensor:
    """Neighborhood attention, with the neighbors of each position from their definition."""
    _, height, width, dim = x.shape
    taps = sliding(height, width, KERNEL, dilation=dilation, border="inside")
    neighbor = torch.tensor([[y * width + x for (y, x), _ in met] for met in taps.values()])
    offset = torch.tensor([[entry for _, entry in met] for met in taps.values()])
    parts = linear(weights, f"{name}.qkv", x).flatten(1, 2).unflatten(-1, (3, -1, HEAD_WIDTH))
    query, key, value = parts.permute(2, 0, 3, 1, 4)  # (B, heads, L, d)
    logits = torch.einsum("bhld,bhltd->bhlt", query / HEAD_WIDTH**0.5, key[:, :, neighbor])
    logits = logits + weights[f"{name}.rpb"].flatten(1)[:, offset]
    mixed = torch.einsum("bhlt,bhltd->blhd", logits.softmax(-1), value[:, :, neighbor])
    return linear(weights, f"{name}.proj", mixed.reshape(len(x), height, width, dim))


def maps(
    weights: Mapping[str, Tensor], images: Tensor, dilations: Sequence[Sequence[int]]
) -> Iterator[Tensor]:
    """Yield the map (B, H, W, C) of each level, before it is downsampled."""
    x = halved(weights, "patch_embed.proj.1", halved(weights, "patch_embed.proj.0", images))
    x = norm(weights, "patch_embed.norm", x.permute(0, 2, 3, 1))
    for level, of_level in enumerate(dilations):
        if level:
            x = halved(weights, f"levels.{level - 1}.downsample.reduction", x.permute(0, 3, 1, 2))
            x = norm(weights, f"levels.{level - 1}.downsample.norm", x.permute(0, 2, 3, 1))
        for index, dilation in enumerate(of_level):
            block = f"levels.{level}.blocks.{index}"
            first, second = (weights.get(f"{block}.gamma{branch}", 1) for branch in (1, 2))
            mixed = attention(weights, f"{block}.attn", norm(weights, f"{block}.norm1", x), dilation)
            x = x + first * mixed
            hidden = F.gelu(linear(weights, f"{block}.mlp.fc1", norm(weights, f"{block}.norm2", x)))
            x = x + second * linear(weights, f"{block}.mlp.fc2", hidden)
        yield x
