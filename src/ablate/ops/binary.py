"""LESA's binary term (Yang et al., 2021): attention whose similarities and outputs are batch-normalised."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from ablate.errors import UserError
from ablate.kernels import pairwise_features
from ablate.kernels.dispatch import fast
from ablate.kernels.geometry import constant
from ablate.ops.axes.regions import pair_offsets

Positions = Literal["flattened", "decomposed", "two_dimensional"]


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
        """(N, H, W, C) → (N, H, W, C); `valid` (N, 1, L, L) is True for pairs that meet, None: all."""
        count, height, width, channels = groups.shape
        projected = self.norm(self.query_key_value(groups).flatten(0, 2))
        shape = count, height * width, self.heads, 2 * channels // self.heads
        by_head = projected.view(shape).permute(0, 2, 3, 1)  # (N, G, 2d, L)
        query, key, value = by_head.split(
            [by_head.shape[2] // 4, by_head.shape[2] // 4, by_head.shape[2] // 2], 2
        )
        outputs = self._outputs(query, key, value, valid)
        interleaved = torch.stack(outputs, dim=3).flatten(1, 3)  # channel-major, term-minor
        y = self.output_norm(interleaved).unflatten(1, (channels, self.position.outputs)).sum(2)
        return y.transpose(1, 2).unflatten(1, (height, width))

    def _outputs(self, query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None) -> list[Tensor]:
        """Sums of the values, and of r^v, with the attention weights: (N, G, d, L) each."""
        norm, pairs = self.similarity_norm, query.shape[0] * query.shape[-1] ** 2
        if fast(query) and type(norm) is nn.BatchNorm2d and pairs > 1:
            positions = self.position.tables()
            moments = None
            if norm.training:
                found = pairwise_features.of_similarities(query, key, *positions[:2])
                moments = found[0].flatten(), found[1].flatten()
            scale, shift = pairwise_features.normalization(norm, moments, pairs)
            scale = (scale + 0 * shift).unflatten(0, (-1, self.heads))  # softmax does not see a shift
            return pairwise_features.attend(query, key, value, positions, scale, valid)
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
