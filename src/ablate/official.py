"""Weights under their authors' names into our operators and hosts."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ablate.errors import UserError
from ablate.ops import LocalOperator
from ablate.ops.weights import PairwiseWeights


def load(module: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Put a state dict of timm's Swin into a host whose slots hold `lsa`; strict.

    timm's `qkv` is our query and key projection above the value projection; its bias table
    is indexed by query - key, ours by key - query.

    Raises:
        UserError: names that have no counterpart, all of them listed.
    """
    slots = {name: part for name, part in module.named_modules() if isinstance(part, LocalOperator)}
    converted: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        owner, _, rest = name.rpartition(".attn.")
        if f"{owner}.attn" in slots:
            converted.update(_swin_attention(f"{owner}.attn", rest, tensor, slots[f"{owner}.attn"]))
        else:
            converted[name] = tensor
    expected = module.state_dict()
    missing, unexpected = (
        sorted(expected.keys() - converted.keys()),
        sorted(converted.keys() - expected.keys()),
    )
    if missing or unexpected:
        raise UserError(
            f"the weights do not fit: missing {missing or 'nothing'}; "
            f"without a place {unexpected or 'nothing'}",
            "build the same model with the operator `lsa` in its slots",
        )
    module.load_state_dict(converted)


def _swin_attention(path: str, name: str, tensor: Tensor, operator: LocalOperator) -> dict[str, Tensor]:
    if match := re.fullmatch(r"qkv\.(weight|bias)", name):
        query_key, value = tensor.split([2 * tensor.shape[0] // 3, tensor.shape[0] // 3])
        return {f"{path}.weights.query_key.{match[1]}": query_key, f"{path}.value.{match[1]}": value}
    if match := re.fullmatch(r"proj\.(weight|bias)", name):
        return {f"{path}.output.{match[1]}": tensor}
    if name == "relative_position_bias_table" and isinstance(operator.weights, PairwiseWeights):
        # (offsets, heads) by query - key: the reverse order is that of key - query
        return {f"{path}.weights.position.{name}": torch.flip(tensor, [0]).T.contiguous()}
    return {f"{path}.{name}": tensor}
