"""LESA (Yang et al., 2021): a convolutional unary term joined to attention's binary term through a gate."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ablate.errors import UserError
from ablate.kernels.layout import average_pool
from ablate.ops.axes import Slot, WindowConfig
from ablate.ops.axes.regions import WindowRegion
from ablate.ops.binary import BinaryTerm, Positions
from ablate.ops.checks import positive
from ablate.ops.deformable import deformed
from ablate.ops.registry import RESNET, register

Unary = Literal["conv", "none"]
Binary = Literal["attention", "none"]
Fusion = Literal["gated", "sum", "static"]

EQUATION = """\
u = BN(1×1(3×3 grouped(x)))                                  unary term
b = BN( Σ_j a_ij v_j ) + BN( Σ_j a_ij r^v_{i−j} )            binary term
a = softmax_j( BN(q_i·k_j) + BN(q_i·r^q_{i−j}) + BN(k_j·r^k_{j−i}) )
y = u + sigmoid( BN(1×1(relu(BN(1×1(relu([u; b])))))) ) ⊙ b  gated; sum: u + b; static: u + sigmoid(g) ⊙ b"""
EQUATION_QR = """\
u = BN(1×1(3×3 grouped(x)))                                  unary term
b = BN( Σ_j a_ij v_j )                                       binary term
a = softmax_j( BN(q_i·k_j) + BN(q_i·(r^row_{j−i} + r^column_{j−i})) )
y = u + sigmoid( BN(1×1(relu(BN(1×1(relu([u; b])))))) ) ⊙ b  gated; sum: u + b; static: u + sigmoid(g) ⊙ b"""
FACTORS = (
    "its own ablation: op.unary=none, op.binary=none, op.fusion=sum (equal weights) or static (a learned "
    "gate per channel, the same for every image and position); one term alone has no fusion"
)
FIXED_MAP = "learned for one map: another size is refused with the size it was built for"
LAYOUT = f"{RESNET} host.strided=keep host.last_stride=1"
CHANNELS = "unary: dense over channels in groups; binary: the host's heads, value projection"


class UnaryTerm(nn.Module):
    """Grouped 3×3 convolution, deformable or not, 1×1 convolution over all channels, batch norm."""

    def __init__(self, dim: int, groups: int, *, deformable: bool) -> None:
        super().__init__()
        self.spatial: nn.Module = nn.Conv2d(dim, dim, 3, padding=1, groups=groups, bias=False)
        self.mix = nn.Conv2d(dim, dim, 1, bias=False) if groups > 1 else nn.Identity()
        self.norm = nn.BatchNorm2d(dim)
        _initialize(self)
        if deformable:
            assert isinstance(self.spatial, nn.Conv2d)
            self.spatial = deformed(self.spatial)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        return self.norm(self.mix(self.spatial(x.permute(0, 3, 1, 2)))).permute(0, 2, 3, 1)


class GatedFusion(nn.Module):
    """u + gate([u; b]) ⊙ b with a gate for each channel and position."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(2 * dim, dim, 1, bias=False),
            nn.BatchNorm2d(dim),
            nn.ReLU(),
            nn.Conv2d(dim, dim, 1, bias=False),
            nn.BatchNorm2d(dim),
            nn.Sigmoid(),
        )
        _initialize(self)

    def forward(self, unary: Tensor, binary: Tensor) -> Tensor:
        """Two maps (B, H, W, C) → (B, H, W, C)."""
        both = torch.cat([unary, binary], dim=-1).permute(0, 3, 1, 2)
        return unary + self.gate(both).permute(0, 2, 3, 1) * binary


class StaticFusion(nn.Module):
    """u + sigmoid(g) ⊙ b with one learned g per channel, 0 at first."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(dim))

    def forward(self, unary: Tensor, binary: Tensor) -> Tensor:
        """Two maps (B, H, W, C) → (B, H, W, C)."""
        return unary + self.gate.sigmoid() * binary


class SumFusion(nn.Module):
    """u + b."""

    def forward(self, unary: Tensor, binary: Tensor) -> Tensor:
        """Two maps (B, H, W, C) → (B, H, W, C)."""
        return unary + binary


@register(
    "lesa",
    paper="LESA, Yang et al.",
    year=2021,
    host=LAYOUT,
    channel_setting=CHANNELS,
    spatial_processing="unary: 3×3, static; binary: whole map, q·k + q·rᵠ + k·rᵏ, rᵛ on values; softmax; "
    "gate",
    equation=EQUATION,
    quirks=(
        "positions are offsets of the flattened map, so that different offsets coincide, as in the code of "
        "the classification models; op.positions=two_dimensional gives each offset its own",
        FIXED_MAP,
        FACTORS,
    ),
    strides=(1, 2),
    ends_in_norm=True,
)
@register(
    "lesa_qr",
    paper="LESA, Yang et al., detection",
    year=2021,
    host=LAYOUT,
    channel_setting=CHANNELS,
    spatial_processing="unary: 3×3, static; binary: whole map, q·k + q·r of rows and columns; softmax; gate",
    equation=EQUATION_QR,
    quirks=(
        "the authors' detectors make the unary term's 3×3 convolution a deformable one: "
        "+host.deformable=[2,3,4]",
        FIXED_MAP,
        FACTORS,
    ),
    strides=(1, 2),
    ends_in_norm=True,
)
class LESA(nn.Module):
    """Locally enhanced self-attention instead of a 3×3 convolution and its batch norm.

    Args:
        slot: its channels C; its heads are those of the binary term and the groups of the unary term's
            convolution; its resolution (H, W) is the one map that positions are learned for; the output is
            averaged over stride² blocks.

    Raises:
        UserError: no resolution, heads that do not fit, neither term.
    """

    def __init__(
        self, slot: Slot, *, unary: Unary, binary: Binary, fusion: Fusion, positions: Positions
    ) -> None:
        super().__init__()
        self.stride = slot.stride
        self.unary = _unary(unary, binary, slot)
        self.binary: BinaryTerm | None = None
        if binary == "attention":
            if slot.resolution is None:
                raise UserError("LESA's positions are learned for one map", "give resolution=(height, width)")
            self.map = tuple(slot.resolution)
            self.binary = BinaryTerm(slot.dim, slot.heads, *slot.resolution, positions)
        self.fusion = _fusion(fusion, slot.dim) if self.unary and self.binary else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, ⌈H/stride⌉, ⌈W/stride⌉, C).

        Raises:
            UserError: another map than the one it was built for.
        """
        if self.binary is not None and tuple(x.shape[1:3]) != self.map:
            raise UserError(
                f"LESA was built for a map of {self.map[0]}×{self.map[1]}, this one is "
                f"{x.shape[1]}×{x.shape[2]}",
                "build the host for this image size (img_size=…)",
            )
        binary = None if self.binary is None else self.binary(x, None)
        return average_pool(_fuse(self, x, binary), self.stride)


@register(
    "lesa_window",
    paper="after LESA, Yang et al.",
    year=2021,
    channel_setting=CHANNELS,
    spatial_processing="unary: 3×3, static; binary: window 7×7, shifted, q·k + q·rᵠ + k·rᵏ, rᵛ on values; "
    "softmax; gate",
    equation=EQUATION,
    quirks=(
        "ours, for the slots of Swin: the binary term of `lesa` in Swin's shifted windows, with a learned "
        "vector for each offset in two dimensions; any map from one window on",
        FACTORS,
    ),
    strides=(1, 2),
    ends_in_norm=False,
)
class WindowLESA(nn.Module):
    """LESA with its binary term in (shifted) windows: unary term and gate see the whole map.

    Args:
        slot: its channels C; its heads are those of the binary term and the groups of the unary term's
            convolution; windows of an odd index are shifted by half a window; the output is averaged over
            stride² blocks.

    Raises:
        UserError: heads that do not fit, neither term, a window larger than the map.
    """

    def __init__(
        self,
        slot: Slot,
        *,
        window: int,
        shift: Literal["alternate", "none"],
        unary: Unary,
        binary: Binary,
        fusion: Fusion,
    ) -> None:
        super().__init__()
        positive("op.window", window)
        if binary == "attention" and slot.resolution is not None and window > min(slot.resolution):
            height, width = slot.resolution
            raise UserError(
                f"op.window={window}: the window is larger than the map of {height}×{width}",
                f"use op.window={min(height, width)} or less, or fill earlier stages (host.stages)",
            )
        self.stride = slot.stride
        self.region = WindowRegion(WindowConfig("window", window, shift), slot, "op.window")
        self.unary = _unary(unary, binary, slot)
        self.binary = None
        if binary == "attention":
            self.binary = BinaryTerm(slot.dim, slot.heads, window, window, "two_dimensional")
        self.fusion = _fusion(fusion, slot.dim) if self.unary and self.binary else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, ⌈H/stride⌉, ⌈W/stride⌉, C).

        Raises:
            UserError: a map smaller than a window.
        """
        binary = None
        if self.binary is not None:
            valid = self.region.valid(x.shape, x.device)
            binary = self.region.restore(self.binary(self.region.prepare(x), valid), x.shape)
        return average_pool(_fuse(self, x, binary), self.stride)


def _fuse(operator: LESA | WindowLESA, x: Tensor, binary: Tensor | None) -> Tensor:
    if operator.unary is None:
        assert binary is not None
        return binary
    unary = operator.unary(x)
    return unary if operator.fusion is None else operator.fusion(unary, binary)


def _fusion(kind: Fusion, dim: int) -> nn.Module:
    if kind == "sum":
        return SumFusion()
    return GatedFusion(dim) if kind == "gated" else StaticFusion(dim)


def _unary(unary: Unary, binary: Binary, slot: Slot) -> UnaryTerm | None:
    """Return the unary term, if there is one.

    Raises:
        UserError: neither term.
    """
    if unary == binary == "none":
        raise UserError(
            "LESA with neither its unary nor its binary term", "keep op.unary=conv or op.binary=attention"
        )
    return UnaryTerm(slot.dim, slot.heads, deformable=slot.deformable) if unary == "conv" else None


def _initialize(module: nn.Module) -> None:
    """Convolutions as in a ResNet."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
