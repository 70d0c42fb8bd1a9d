"""Pairwise and patchwise self-attention (SAN, Zhao et al., 2020)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, cast

import torch
from torch import Tensor, nn

from ablate import kernels
from ablate.errors import UserError
from ablate.kernels import pairwise_features
from ablate.kernels.dispatch import fast
from ablate.kernels.layout import average_pool
from ablate.ops.checks import odd_kernel, positive
from ablate.ops.registry import RESNET, register

CHANNELS = "a filter for every 8 channels, interleaved; value projection"
QUIRKS = (
    "the neighborhood is filled up by reflection at borders: a map needs more than ⌊K/2⌋ positions a side",
    "filters are interleaved: channel c has filter c mod (C/share)",
    "the authors' block reads 4·C channels and its 1×1 convolution restores them; here the operator maps C "
    "to C, and relations have C/4 channels as there",
    "with a stride, the output is averaged over stride² positions (the authors pool between stages)",
)


class SharedAggregation(nn.Module, ABC):
    """The common part of both forms: three projections, reflection, and interleaved filters.

    Each makes its filters in two ways. The plain one holds what the network reads for every pair of a
    neighborhood. The other one (`kernels.relations`) holds none of it, in training neither: batch norms
    are given their statistics, and become a scale and a shift of the layers around them.
    """

    weights: nn.Sequential  # norm, relu, linear, norm, relu, linear

    def __init__(
        self,
        dim: int,
        resolution: tuple[int, int] | None,
        stride: int,
        kernel: int,
        share: int,
        reduction: int,
    ) -> None:
        super().__init__()
        odd_kernel("op.kernel", kernel)
        positive("op.share", share)
        positive("op.reduction", reduction)
        for name, divisor in (("share", share), ("reduction", reduction)):
            if dim % divisor:
                raise UserError(
                    f"op.{name}={divisor} does not divide the {dim} channels of this slot", "choose a divisor"
                )
        self.stride, self.kernel = stride, kernel
        if resolution is not None:
            self._check_map(*resolution)
        self.filters, self.relation = dim // share, dim // reduction
        self.centre = nn.Linear(dim, self.relation)  # φ
        self.neighbor = nn.Linear(dim, self.relation)  # ψ
        self.value = nn.Linear(dim, dim)  # β

    @abstractmethod
    def filters_of(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C/share, K²)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, ⌈H/stride⌉, ⌈W/stride⌉, C).

        Raises:
            UserError: a map too small to be reflected.
        """
        self._check_map(x.shape[1], x.shape[2])
        contiguous = self.value(x).unflatten(-1, (-1, self.filters)).transpose(-1, -2).flatten(-2)
        y = kernels.aggregate(contiguous, self.filters_of(x), kernel=self.kernel, border="reflect")
        return average_pool(y.unflatten(-1, (self.filters, -1)).transpose(-1, -2).flatten(-2), self.stride)

    def _check_map(self, height: int, width: int) -> None:
        radius = self.kernel // 2
        if min(height, width) <= radius:
            raise UserError(
                f"op.kernel={self.kernel} reflects {radius} positions at each border, the map has "
                f"{height}×{width}",
                f"use a kernel up to {2 * min(height, width) - 1}, or fill earlier stages (host.stages)",
            )

    def in_parts(self, x: Tensor) -> bool:
        """Return True if filters are computed in parts; only known norms can be."""
        usual = all(type(norm) is nn.BatchNorm1d for norm in self.layers()[::2])
        return usual and fast(x) and x[..., 0].numel() > 1

    def layers(self) -> tuple[nn.BatchNorm1d, nn.Linear, nn.BatchNorm1d, nn.Linear]:
        """Trainable layers of the network."""
        first, _, reduce, second, _, expand = self.weights
        return cast(Any, (first, reduce, second, expand))

    def neighbors(self, x: Tensor) -> Tensor:
        """(B, H, W, R) → (B, H, W, R, K²): the reflected map at every tap."""
        padded = reflect(x, self.kernel // 2)
        return padded.unfold(1, self.kernel, 1).unfold(2, self.kernel, 1).flatten(-2)


@register(
    "san_pairwise",
    paper="SAN, Zhao et al.",
    year=2020,
    sliding=("kernel",),
    host=RESNET,
    channel_setting=CHANNELS,
    spatial_processing="neighborhood 7×7, reflected; φ_i − ψ_j and position through a small network; softmax",
    equation="y_i[c] = Σ_j softmax_j( γ([φ_i − ψ_j; p_i − p_j])[c mod C/8] ) β_j[c]\n"
    "γ = W₂ relu(BN(W₁ relu(BN(·))))",
    quirks=(*QUIRKS, "positions run from −1 to 1 over the map: what an offset counts changes with its size"),
    strides=(1, 2),
    equivariance=1,
)
class PairwiseSelfAttention(SharedAggregation):
    """Each weight from the difference of two features and of their positions.

    Args:
        dim: channels C.
        resolution: (H, W), checked against the kernel if given.
        stride: the output is averaged over stride² blocks.
        kernel: K, odd.
        share: channels per filter.
        reduction: C / channels of the relation.

    Raises:
        UserError: an even kernel, numbers that do not divide C, a map too small to be reflected.
    """

    def __init__(
        self,
        dim: int,
        resolution: tuple[int, int] | None,
        stride: int,
        *,
        kernel: int,
        share: int,
        reduction: int,
    ) -> None:
        super().__init__(dim, resolution, stride, kernel, share, reduction)
        self.position = nn.Linear(2, 2)
        self.weights = nn.Sequential(
            nn.BatchNorm1d(self.relation + 2),
            nn.ReLU(),
            nn.Linear(self.relation + 2, self.relation, bias=False),
            nn.BatchNorm1d(self.relation),
            nn.ReLU(),
            nn.Linear(self.relation, self.filters),
        )

    def filters_of(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C/share, K²), summing to 1 over the taps."""
        batch, height, width, _ = x.shape
        place = self.position(coordinates(height, width, x)).expand(batch, -1, -1, -1)
        features = torch.cat([self.neighbor(x), place], dim=-1)
        own = torch.cat([self.centre(x), place], dim=-1)
        if self.in_parts(x):
            padded = reflect(features, self.kernel // 2)
            return self._filters_in_parts(channels_first(own), channels_first(padded))
        differences = (own[..., None] - self.neighbors(features)).transpose(-1, -2)  # (B, H, W, K², R + 2)
        weights = self.weights(differences.flatten(0, 3)).unflatten(0, differences.shape[:4])
        return weights.transpose(-1, -2).softmax(-1)

    def _filters_in_parts(self, own: Tensor, neighbor: Tensor) -> Tensor:
        """Compute the filters in parts from (B, R + 2, H, W) and its padded neighbors."""
        first, reduce, second, expand = self.layers()
        dtype, count = own.dtype, own[:, 0].numel() * self.kernel**2
        moments = pairwise_features.of_differences(own, neighbor, self.kernel) if first.training else None
        scale, shift = (x[:, None, None] for x in pairwise_features.normalization(first, moments, count))
        own, neighbor = (own * scale + shift).to(dtype), (neighbor * scale).to(dtype)
        moments = None
        if second.training:
            mean, covariance = pairwise_features.pair_moments(own, neighbor, self.kernel)
            weight = reduce.weight.double()
            moments = weight @ mean, ((weight @ covariance) * weight).sum(1)
        scale, shift = pairwise_features.normalization(second, moments, count)
        weights = reduce.weight * scale[:, None], shift, expand.weight, expand.bias
        return pairwise_features.pair_filters(own, neighbor, *weights, self.kernel)


@register(
    "san_patchwise",
    paper="SAN, Zhao et al.",
    year=2020,
    sliding=("kernel",),
    host=RESNET,
    channel_setting=CHANNELS,
    spatial_processing="neighborhood 7×7, reflected; φ_i and all ψ_j through a small network; no norm",
    equation="y_i[c] = Σ_Δ ( γ([φ_i; ψ_j for all j])_Δ[c mod C/8] ) β_{i+Δ}[c]\n"
    "γ = W₂ relu(BN(W₁ relu(BN(·))))",
    quirks=QUIRKS,
    strides=(1, 2),
    equivariance=1,
)
class PatchwiseSelfAttention(SharedAggregation):
    """All weights of a neighborhood at once, from all of its features.

    Args:
        dim: channels C.
        resolution: (H, W), checked against the kernel if given.
        stride: the output is averaged over stride² blocks.
        kernel: K, odd.
        share: channels per filter.
        reduction: C / channels of the relation.

    Raises:
        UserError: an even kernel, numbers that do not divide C, a map too small to be reflected.
    """

    def __init__(
        self,
        dim: int,
        resolution: tuple[int, int] | None,
        stride: int,
        *,
        kernel: int,
        share: int,
        reduction: int,
    ) -> None:
        super().__init__(dim, resolution, stride, kernel, share, reduction)
        width = self.relation * (kernel**2 + 1)
        self.weights = nn.Sequential(
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, self.filters, bias=False),
            nn.BatchNorm1d(self.filters),
            nn.ReLU(),
            nn.Linear(self.filters, kernel**2 * self.filters),
        )

    def filters_of(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C/share, K²)."""
        if self.in_parts(x):
            return self._filters_in_parts(x)
        patch = torch.cat([self.centre(x), self.neighbors(self.neighbor(x)).flatten(-2)], dim=-1)
        return self.weights(patch.flatten(0, 2)).unflatten(0, x.shape[:3]).unflatten(-1, (self.filters, -1))

    def _filters_in_parts(self, x: Tensor) -> Tensor:
        """Compute the filters in parts; the centre is a patch of one tap."""
        first, reduce, second, expand = self.layers()
        own = channels_first(self.centre(x))
        neighbor = channels_first(reflect(self.neighbor(x), self.kernel // 2))
        moments = None
        if first.training:
            both = zip(
                pairwise_features.of_taps(own, 1),
                pairwise_features.of_taps(neighbor, self.kernel),
                strict=True,
            )
            mean, variance = (torch.cat([one.flatten(), other.flatten()]) for one, other in both)
            moments = mean, variance
        scale, shift = pairwise_features.normalization(first, moments, x[..., 0].numel())

        def features(taken: Tensor, kernel: int, columns: slice) -> Tensor:
            weights = (
                w[..., columns].unflatten(-1, (-1, kernel, kernel)) for w in (scale, shift, reduce.weight)
            )
            return pairwise_features.patch_features(taken, *weights, kernel)

        centre, others = slice(None, self.relation), slice(self.relation, None)
        narrow = features(own, 1, centre) + features(neighbor, self.kernel, others)  # (B, C/share, H, W)
        filters = expand(second(narrow.permute(0, 2, 3, 1).flatten(0, 2)).relu())
        return filters.unflatten(0, x.shape[:3]).unflatten(-1, (self.filters, -1))


def channels_first(x: Tensor) -> Tensor:
    """(B, H, W, C) → (B, C, H, W)."""
    return x.permute(0, 3, 1, 2).contiguous()


def reflect(x: Tensor, radius: int) -> Tensor:
    """(B, H, W, C) → (B, H + 2·radius, W + 2·radius, C), mirrored at the outermost positions."""
    for axis in (1, 2):
        first, last = x.narrow(axis, 1, radius), x.narrow(axis, x.shape[axis] - 1 - radius, radius)
        x = torch.cat([first.flip(axis), x, last.flip(axis)], axis)
    return x


def coordinates(height: int, width: int, like: Tensor) -> Tensor:
    """(1, H, W, 2): column and row of each position, from −1 to 1."""
    rows, columns = (torch.linspace(-1, 1, n, dtype=like.dtype, device=like.device) for n in (height, width))
    grid = torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)], dim=-1)
    return grid[None]
