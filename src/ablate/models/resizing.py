"""Weights for another image or window size: tables of positions are interpolated, as timm does for its own.

Every table of relative positions is a grid of offsets, (2H − 1) × (2W − 1) of a window or map of H × W, and
is resized as timm's `resize_rel_pos_bias_table` does, which keeps the entry of offset 0. Source windows and
maps are taken to be square, as in timm. Tables of sliding neighborhoods depend on the kernel only and stay.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from functools import cache

import torch
from timm.layers import resample_abs_pos_embed_nhwc, resize_rel_pos_bias_table
from timm.models.swin_transformer import WindowAttention
from timm.models.volo import VOLO
from torch import Tensor, nn

from ablate.errors import UserError
from ablate.ops.axes.regions import AllPairsRegion
from ablate.ops.binary import DecomposedPositions, FlattenedPositions
from ablate.ops.local import LocalOperator

Map = tuple[int, int]
Resize = Callable[[Tensor], Tensor]
TABLES = (  # of an operator whose positions all meet: (heads, offsets, …) or (C, offsets)
    "weights.position.relative_position_bias_table",
    "weights.position.query_position",
    "weights.position.key_position",
    "ghost.multiply",
    "ghost.add",
)


def resize_positions(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return `state_dict` with every table of positions in the shape that `model` has.

    timm calls it on loading `pretrained=True` weights. A table that has its shape already is left as it is.

    Raises:
        UserError: a table that is not of a square window or map.
    """
    expected = model.state_dict()
    resized = dict(state_dict)
    for path, module in model.named_modules():
        for name, resize in _tables(module).items():
            key = f"{path}.{name}".lstrip(".")
            if key in resized and key in expected and resized[key].shape != expected[key].shape:
                try:
                    resized[key] = resize(resized[key])
                except ValueError as error:
                    raise UserError(
                        f"{key} cannot be interpolated: {error}", "build the size of the weights"
                    ) from error
    return resized


def _tables(module: nn.Module) -> dict[str, Resize]:
    """Functions that resize the parameters of a module whose shape follows a window or map, by name."""
    if isinstance(module, WindowAttention):
        window = module.window_size
        shape = module.relative_position_bias_table.shape
        return {"relative_position_bias_table": lambda t: resize_rel_pos_bias_table(t, window, shape)}
    if isinstance(module, LocalOperator) and isinstance(module.region, AllPairsRegion):
        to = (module.region.height, module.region.width)
        return {name: lambda table: _offsets(table.movedim(1, -1), to).movedim(-1, 1) for name in TABLES}
    if isinstance(module, FlattenedPositions):
        if module.two_dimensional:
            return {"relative": lambda table: _offsets(table, module.map)}
        return {"relative": lambda table: _raster(table, module.map)}
    if isinstance(module, DecomposedPositions):
        rows, columns = module.map
        return {"rows": lambda table: _axis(table, rows), "columns": lambda table: _axis(table, columns)}
    if isinstance(module, VOLO) and module.pos_embed is not None:
        grid = [*module.pos_embed.shape[1:3]]
        return {"pos_embed": lambda table: resample_abs_pos_embed_nhwc(table, grid)}
    return {}


def _offsets(table: Tensor, to: Map) -> Tensor:
    """(…, offsets) of a square map → those of a map of `to`, rows of offsets first."""
    side = _odd_side(table.shape[-1])
    return _resized(table.unflatten(-1, (side, side)), to).flatten(-2)


def _raster(table: Tensor, to: Map) -> Tensor:
    """(…, 2·H·W − 1) offsets i − j on a flattened map → those of a map of `to`.

    Two offsets of the map that coincide when it is flattened share an entry, which becomes the mean of
    both, weighted with the number of pairs that have each.
    """
    side = math.isqrt((table.shape[-1] + 1) // 2)
    if 2 * side * side - 1 != table.shape[-1]:
        raise ValueError(f"{table.shape[-1]} offsets are not those of a flattened square map")
    grid = _resized(table[..., _flat_offsets((side, side))], to)
    height, width = to
    rows, columns = (size - torch.arange(1 - size, size).abs() for size in to)
    pairs = (rows[:, None] * columns[None, :]).flatten().to(grid)
    index = _flat_offsets(to).flatten().to(grid.device)
    found = grid.new_zeros(*grid.shape[:-2], 2 * height * width - 1)
    counted = found.new_zeros(found.shape[-1]).index_add(0, index, pairs)
    return found.index_add(-1, index, grid.flatten(-2) * pairs) / counted


def _flat_offsets(of: Map) -> Tensor:
    """(2H − 1, 2W − 1): where an offset of the map is among those of the flattened map."""
    height, width = of
    rows, columns = torch.arange(1 - height, height), torch.arange(1 - width, width)
    return rows[:, None] * width + columns[None, :] + height * width - 1


def _axis(table: Tensor, size: int) -> Tensor:
    """(offsets, C) along one axis → (2 · size − 1, C)."""
    return _interpolation(table.shape[0], size).to(table) @ table


def _resized(grid: Tensor, to: Map) -> Tensor:
    """(…, 2H − 1, 2W − 1) → the same for a window of `to`."""
    rows, columns = (_interpolation(*sizes).to(grid) for sizes in zip(grid.shape[-2:], to, strict=True))
    return rows @ grid @ columns.T


@cache
def _interpolation(offsets: int, size: int) -> Tensor:
    """(2 · size − 1, offsets): the weights of timm's interpolation along one axis.

    timm resizes a table for one channel at a time. Its interpolation is linear in the table and acts on rows
    and columns independently, so that these weights do the same for all channels at once.
    """
    if offsets == 1:  # one position, of which only offset 0 is known
        return torch.ones(2 * size - 1, 1, device="cpu")
    # on the CPU also where a network is built on the meta device; PyTorch's warnings are of timm's own lines
    with torch.device("cpu"), warnings.catch_warnings(action="ignore"):
        basis = torch.eye(offsets)[:, :, None].expand(-1, -1, offsets)  # table k is 1 in row k
        shape = (offsets, 2 * size - 1, 2 * size - 1)
        resized = resize_rel_pos_bias_table(basis, (size, size), shape).reshape(shape)  # timm 1.0.22: flat
        return resized[:, :, size - 1].T.contiguous()


def _odd_side(offsets: int) -> int:
    side = math.isqrt(offsets)
    if side * side != offsets or side % 2 == 0:
        raise ValueError(f"{offsets} offsets are not those of a square map")
    return side
