"""LESA (Yang et al., 2021): a convolutional unary term joined to attention's binary term through a gate."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from ablate.errors import UserError
from ablate.ops.axes import Slot, Window
from ablate.ops.checks import positive
from ablate.ops.kernels import relations
from ablate.ops.kernels.choice import fast
from ablate.ops.kernels.geometry import constant
from ablate.ops.kernels.layout import average_pool
from ablate.ops.regions import WindowRegion, pair_offsets
from ablate.ops.registry import RESNET, register

Unary = Literal["conv", "none"]
Binary = Literal["attention", "none"]
Fusion = Literal["gated", "sum", "static"]
Positions = Literal["flattened", "decomposed", "two_dimensional"]

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


@constant
def raster_offsets(height: int, width: int, device: torch.device) -> Tensor:
    """(L, L): i − j + L − 1, the offset of two positions on the flattened map."""
    position = torch.arange(height * width)
    return (position[:, None] - position[None, :] + height * width - 1).to(device)


class FlattenedPositions(nn.Module):
    """r^q, r^k and r^v on offsets of the flattened map, or on its true offsets in two dimensions.

    On the flattened map different offsets coincide: at width 4, three to the right is one down and
    one to the left. Shared by all heads.
    """

    terms, outputs = 3, 2  # similarities and outputs that are normalised by themselves

    def __init__(self, width: int, height: int, columns: int, two_dimensional: bool) -> None:
        super().__init__()
        self.map, self.two_dimensional = (height, columns), two_dimensional
        count = (2 * height - 1) * (2 * columns - 1) if two_dimensional else 2 * height * columns - 1
        self.split = [width // 2, width // 2, width]
        self.relative = nn.Parameter(torch.empty(2 * width, count))
        nn.init.normal_(self.relative, std=width**-0.5)

    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """r^q, r^k and r^v of every pair: (d/2, L, L) twice and (d, L, L)."""
        if self.two_dimensional:
            index = pair_offsets(*self.map, self.relative.device).T  # of i − j
        else:
            index = raster_offsets(*self.map, self.relative.device)
        at_query, at_key, at_value = self.relative[:, index].split(self.split)
        return at_query, at_key, at_value

    def forward(self, query: Tensor, key: Tensor) -> tuple[list[Tensor], Tensor]:
        """(N, G, d/2, L) twice → position similarities, each (N, G, L, L), and r^v_{i−j} as (d, L, L)."""
        at_query, at_key, at_value = self.tables()
        from_query = torch.einsum("ngci,cij->ngij", query, at_query)
        from_key = torch.einsum("ngci,cij->ngij", key, at_key).transpose(2, 3)
        return [from_query, from_key], at_value


class DecomposedPositions(nn.Module):
    """q_i·(r^row + r^column) of LESA's detection form; shared by all heads, nothing on keys and values."""

    terms, outputs = 2, 1

    def __init__(self, width: int, height: int, columns: int) -> None:
        super().__init__()
        self.map = (height, columns)
        self.rows = nn.Parameter(torch.randn(2 * height - 1, width // 2) * (width // 2) ** -0.5)
        self.columns = nn.Parameter(torch.randn(2 * columns - 1, width // 2) * (width // 2) ** -0.5)

    def tables(self) -> tuple[Tensor, None, None]:
        """r^row + r^column of every pair, (d/2, L, L)."""
        by_row, by_column = (axis.permute(2, 0, 1) for axis in self._axes())
        every = by_row[:, :, None, :, None] + by_column[:, None, :, None, :]  # (c, y, x, v, u)
        return every.flatten(3).flatten(1, 2), None, None

    def forward(self, query: Tensor, key: Tensor) -> tuple[list[Tensor], None]:
        """(N, G, d/2, L) → the one position similarity (N, G, L, L)."""
        on_map = query.unflatten(-1, self.map)  # (N, G, c, H, W)
        rows, columns = self._axes()
        by_row = torch.einsum("ngcyx,yvc->ngyxv", on_map, rows)
        by_column = torch.einsum("ngcyx,xuc->ngyxu", on_map, columns)
        logits = by_row[..., :, None] + by_column[..., None, :]  # (N, G, y, x, v, u)
        return [logits.flatten(4).flatten(2, 3)], None

    def _axes(self) -> list[Tensor]:
        """r^row (H, H, c) and r^column (W, W, c): own place first, then the other's."""
        found = []
        for size, vectors in zip(self.map, (self.rows, self.columns), strict=True):
            place = torch.arange(size, device=vectors.device)
            found.append(vectors[place[None, :] - place[:, None] + size - 1])
        return found


class BinaryTerm(nn.Module):
    """Attention over a whole group with batch-normalised similarities and outputs.

    q, k have half of a head's width, v all of it; the rows of `query_key_value` are q, k, v of one
    head after another. No 1/√d: the norm sets the scale.
    """

    def __init__(self, dim: int, heads: int, height: int, columns: int, positions: Positions) -> None:
        super().__init__()
        if dim % (2 * heads):
            raise UserError(
                f"{heads} heads of {dim} channels: LESA's queries and keys have half a head's width",
                f"choose a number of heads whose double divides {dim}",
            )
        self.heads, width = heads, dim // heads
        self.position: FlattenedPositions | DecomposedPositions
        if positions == "decomposed":
            self.position = DecomposedPositions(width, height, columns)
        else:
            self.position = FlattenedPositions(width, height, columns, positions == "two_dimensional")
        self.query_key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.norm = nn.BatchNorm1d(2 * dim)
        self.similarity_norm = nn.BatchNorm2d(self.position.terms * heads)
        self.output_norm = nn.BatchNorm1d(self.position.outputs * dim)
        nn.init.normal_(self.query_key_value.weight, std=math.sqrt(1 / dim))

    def forward(self, groups: Tensor, valid: Tensor | None) -> Tensor:
        """(N, H, W, C) → (N, H, W, C); `valid` (N, 1, L, L) tells which pairs meet, None: all."""
        count, height, width, channels = groups.shape
        projected = self.norm(self.query_key_value(groups).flatten(0, 2))
        by_head = projected.view(count, height * width, self.heads, -1).permute(0, 2, 3, 1)  # (N, G, 2d, L)
        query, key, value = by_head.split(
            [by_head.shape[2] // 4, by_head.shape[2] // 4, by_head.shape[2] // 2], 2
        )
        outputs = self._outputs(query, key, value, valid)
        interleaved = torch.stack(outputs, dim=3).flatten(1, 3)  # channel-major, term-minor
        y = self.output_norm(interleaved).unflatten(1, (channels, self.position.outputs)).sum(2)
        return y.transpose(1, 2).unflatten(1, (height, width))

    def _outputs(self, query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None) -> list[Tensor]:
        """What attention gathers of values, and of r^v: (N, G, d, L) each."""
        norm, pairs = self.similarity_norm, len(query) * query.shape[-1] ** 2
        if fast(query) and type(norm) is nn.BatchNorm2d and pairs > 1:
            at_query, at_key, at_value = self.position.tables()
            moments = None
            if norm.training:
                found = relations.of_similarities(query, key, at_query, at_key)
                moments = found[0].flatten(), found[1].flatten()
            scale, shift = relations.normalization(norm, moments, pairs)
            scale = (scale + 0 * shift).unflatten(0, (-1, self.heads))  # softmax does not see a shift
            return relations.attend(query, key, value, at_query, at_key, at_value, scale, valid)
        similarities, at_value = self.position(query, key)
        stacked = torch.cat([query.transpose(-1, -2) @ key, *similarities], dim=1)  # (N, terms · G, L, L)
        logits = self.similarity_norm(stacked).unflatten(1, (self.position.terms, self.heads)).sum(1)
        if valid is not None:
            logits = logits.masked_fill(~valid, float("-inf"))
        attention = logits.softmax(-1)
        outputs = [value @ attention.transpose(-1, -2)]  # (N, G, d, L)
        if at_value is not None:
            outputs.append(torch.einsum("ngij,cij->ngci", attention, at_value))
        return outputs


class UnaryTerm(nn.Module):
    """Grouped 3×3 convolution, 1×1 convolution over all channels, batch norm."""

    def __init__(self, dim: int, groups: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(dim, dim, 3, padding=1, groups=groups, bias=False)
        self.mix = nn.Conv2d(dim, dim, 1, bias=False) if groups > 1 else nn.Identity()
        self.norm = nn.BatchNorm2d(dim)
        _initialize(self)

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
        "the authors' detectors make the unary term's 3×3 convolution a deformable one; this form does not",
        FIXED_MAP,
        FACTORS,
    ),
    strides=(1, 2),
    ends_in_norm=True,
)
class LESA(nn.Module):
    """Locally enhanced self-attention in the place of a 3×3 convolution and its batch norm.

    Args:
        dim: channels C.
        heads: of the binary term; also the groups of the unary term's convolution.
        resolution: (H, W), the one map that positions are learned for.
        stride: the output is averaged over stride² blocks.

    Raises:
        UserError: no resolution, heads that do not fit, neither term.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        resolution: tuple[int, int] | None,
        stride: int,
        *,
        unary: Unary,
        binary: Binary,
        fusion: Fusion,
        positions: Positions,
    ) -> None:
        super().__init__()
        _check_terms(unary, binary)
        self.stride = stride
        self.unary = UnaryTerm(dim, heads) if unary == "conv" else None
        self.binary: BinaryTerm | None = None
        if binary == "attention":
            if resolution is None:
                raise UserError("LESA's positions are learned for one map", "give resolution=(height, width)")
            self.map = tuple(resolution)
            self.binary = BinaryTerm(dim, heads, *resolution, positions)
        self.fusion = _fusion(fusion, dim) if self.unary and self.binary else None

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
        dim: channels C.
        heads: of the binary term; also the groups of the unary term's convolution.
        resolution: (H, W), checked against the window if given.
        stride: the output is averaged over stride² blocks.
        index: windows of odd blocks are shifted by half a window.

    Raises:
        UserError: heads that do not fit, neither term, a window larger than the map.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        resolution: tuple[int, int] | None,
        stride: int,
        index: int,
        *,
        window: int,
        shift: Literal["alternate", "none"],
        unary: Unary,
        binary: Binary,
        fusion: Fusion,
    ) -> None:
        super().__init__()
        _check_terms(unary, binary)
        positive("op.window", window)
        if binary == "attention" and resolution is not None and window > min(resolution):
            raise UserError(
                f"op.window={window}: the window is larger than the map of {resolution[0]}×{resolution[1]}",
                f"use op.window={min(resolution)} or less, or fill earlier stages (host.stages)",
            )
        self.stride = stride
        slot = Slot(dim, heads, resolution, 1, index)
        self.region = WindowRegion(Window("window", window, shift), slot, "op.window")
        self.unary = UnaryTerm(dim, heads) if unary == "conv" else None
        self.binary = (
            BinaryTerm(dim, heads, window, window, "two_dimensional") if binary == "attention" else None
        )
        self.fusion = _fusion(fusion, dim) if self.unary and self.binary else None

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


def _check_terms(unary: Unary, binary: Binary) -> None:
    if unary == binary == "none":
        raise UserError(
            "LESA with neither its unary nor its binary term", "keep op.unary=conv or op.binary=attention"
        )


def _initialize(module: nn.Module) -> None:
    """Convolutions as in a ResNet."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
