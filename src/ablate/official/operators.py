"""Places of the authors' tensors in our operators.

A *place* function takes our operator, an authors' name and its tensor, and returns our names and
tensors: none for buffers that we compute, None for a name it does not know.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor, nn

from ablate.ops import LocalOperator
from ablate.ops.axes.learned_query import LearnedQueryWeights
from ablate.ops.axes.pairs import PairwiseWeights
from ablate.ops.axes.weights import (
    BottleneckWeights,
    HadamardConvWeights,
    PooledWeights,
    StaticWeights,
)
from ablate.ops.axes.wide_conv import WideConvWeights

Place = Callable[[nn.Module, str, Tensor], dict[str, Tensor] | None]
# Files beside this one, each with a table PLACES.
FAMILIES = ("attention", "deformable", "dynamic_filters", "hybrids", "large_kernels", "lesa", "modulation")


def place_of(module: nn.Module) -> Place | None:
    """Return what places the tensors of this module; None if it has no published weights."""
    if isinstance(module, LocalOperator):
        return LOCAL.get(type(module.weights))
    return _own().get(type(module))


@cache
def _own() -> dict[type[nn.Module], Place]:
    """Operators that are modules of their own: every table `PLACES` beside this file."""
    tables = (importlib.import_module(f"ablate.official.{family}").PLACES for family in FAMILIES)
    return {module: place for table in tables for module, place in table.items()}


def by_table(names: Mapping[str, str]) -> Place:
    """A place function that renames: authors' patterns (whole names) → ours, as in `re.sub`.

    A 1×1 convolution whose counterpart is linear loses its two last dimensions.
    """

    def place(module: nn.Module, name: str, tensor: Tensor) -> dict[str, Tensor] | None:
        for pattern, ours in names.items():
            if match := re.fullmatch(pattern, name):
                target = match.expand(ours)
                return {target: _fitting(module, target, tensor)}
        return None

    return place


def _fitting(module: nn.Module, name: str, tensor: Tensor) -> Tensor:
    path, _, leaf = name.rpartition(".")
    if leaf == "weight" and tensor.ndim == 4 and name in module.state_dict():
        return tensor.flatten(1) if isinstance(module.get_submodule(path), nn.Linear) else tensor
    return tensor


def _attention(operator: nn.Module, name: str, tensor: Tensor) -> dict[str, Tensor] | None:
    """Swin's window attention (Microsoft, timm) and NATTEN's module: `qkv`, `proj` and a bias table."""
    if match := re.fullmatch(r"qkv\.(weight|bias)", name):
        query_key, value = tensor.tensor_split([2 * tensor.shape[0] // 3])
        return {f"weights.query_key.{match[1]}": query_key, f"value.{match[1]}": value}
    if match := re.fullmatch(r"proj\.(weight|bias)", name):
        return {f"output.{match[1]}": tensor}
    table = "weights.position.relative_position_bias_table"
    if name == "relative_position_bias_table":
        # (offsets, heads) by query - key: the reverse order is that of key - query
        return {table: torch.flip(tensor, [0]).T.contiguous()}
    if name == "rpb":
        return {table: tensor.flatten(1)}
    return {} if name in ("relative_position_index", "attn_mask") else None


def _elsa(operator: nn.Module, name: str, tensor: Tensor) -> dict[str, Tensor] | None:
    """ELSA's module: `pre_proj` is query, key and value, `ghost_head` both tables or one."""
    assert isinstance(operator, LocalOperator)
    assert isinstance(operator.weights, HadamardConvWeights)
    if match := re.fullmatch(r"pre_proj\.(weight|bias)", name):
        flat = tensor.reshape(tensor.shape[0], *tensor.shape[1:2])
        query_key = operator.weights.query_key.out_features
        return {f"weights.query_key.{match[1]}": flat[:query_key], f"value.{match[1]}": flat[query_key:]}
    if name == "ghost_head":
        tables = tensor.reshape(-1, *tensor.shape[-3:-2], tensor.shape[-1] * tensor.shape[-2])
        parts = [part for part in ("multiply", "add") if getattr(operator.ghost, part) is not None]
        if len(parts) != len(tables):
            return None
        return {f"ghost.{part}": table for part, table in zip(parts, tables, strict=True)}
    return by_table(
        {
            r"attn\.0\.(weight|bias)": r"weights.mix.\1",
            r"attn\.2\.(weight|bias)": r"weights.expand.\1",
            r"post_proj\.(weight|bias)": r"output.\1",
        }
    )(operator, name, tensor)


def _depthwise(operator: nn.Module, name: str, tensor: Tensor) -> dict[str, Tensor] | None:
    """`nn.Conv2d` with one filter per channel."""
    if name == "weight":
        return {"weights.filters": tensor.flatten(1)}
    return {name: tensor} if name == "bias" else None


_involution = by_table(
    {
        r"conv1\.conv\.weight": "weights.reduce.weight",
        r"conv1\.bn\.(\w+)": r"weights.norm.\1",
        r"conv2\.conv\.(weight|bias)": r"weights.expand.\1",
        r"conv1\.0\.(weight|bias)": r"weights.reduce.\1",  # I-D-DWConv, from here on
        r"conv1\.1\.(\w+)": r"weights.norm.\1",
        r"conv2\.0\.(weight|bias)": r"weights.expand.\1",
    }
)

_pooled = by_table(
    {
        r"conv1\.weight": "weights.reduce.weight",
        r"bn\.(\w+)": r"weights.norm.\1",
        r"conv2\.(weight|bias)": r"weights.expand.\1",
        "bias": "bias",
    }
)

_perception = by_table(
    {
        r"lkp\.cv1\.c\.weight": "weights.reduce.weight",
        r"lkp\.cv1\.bn\.(\w+)": r"weights.reduce_norm.\1",
        r"lkp\.cv2\.c\.weight": "weights.look.weight",
        r"lkp\.cv2\.bn\.(\w+)": r"weights.look_norm.\1",
        r"lkp\.cv3\.c\.weight": "weights.mix.weight",
        r"lkp\.cv3\.bn\.(\w+)": r"weights.mix_norm.\1",
        r"lkp\.cv4\.(weight|bias)": r"weights.expand.\1",
        r"bn\.(\w+)": r"output.norm.\1",
    }
)


def _ls_conv(operator: nn.Module, name: str, tensor: Tensor) -> dict[str, Tensor] | None:
    """LSNet's module: channel c has filter c mod G there, and filter ⌊c · G / C⌋ here."""
    assert isinstance(operator, LocalOperator)
    if match := re.fullmatch(r"lkp\.norm\.(weight|bias)", name):
        return {f"norm.{match[1]}": tensor.unflatten(0, (operator.heads, -1))}
    if name == "lkp.cv1.c.weight":
        tensor = contiguous(tensor, operator.heads, 1)
    elif name.startswith("bn.") and tensor.ndim:
        tensor = contiguous(tensor, operator.heads, 0)
    return _perception(operator, name, tensor)


def contiguous(x: Tensor, filters: int, dim: int) -> Tensor:
    """Bring the channels of each filter together, in a dimension whose entry c has filter c mod `filters`."""
    return x.unflatten(dim, (-1, filters)).transpose(dim, dim + 1).flatten(dim, dim + 1)


def _qna(operator: nn.Module, name: str, tensor: Tensor) -> dict[str, Tensor] | None:
    """QnA's Flax tree joined by dots: kernels are (in, out), tables (K², queries · heads)."""
    transposed = {
        "Wk": "weights.key.weight",
        "to_v.kernel": "value.weight",
        "to_out.kernel": "output.weight",
        "rpe_bias": "weights.relative_position_bias_table",
        "attn_scale_weights": "weights.gains",
    }
    if name == "query":
        return {"weights.query": tensor}
    return {transposed[name]: tensor.flatten(0, -2).T.contiguous()} if name in transposed else None


LOCAL: dict[type[nn.Module], Place] = {
    PairwiseWeights: _attention,
    HadamardConvWeights: _elsa,
    BottleneckWeights: _involution,
    PooledWeights: _pooled,
    StaticWeights: _depthwise,
    WideConvWeights: _ls_conv,
    LearnedQueryWeights: _qna,
}
