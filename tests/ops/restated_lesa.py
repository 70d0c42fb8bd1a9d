"""LESA, written from its formulas pair by pair."""

from __future__ import annotations

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from tests.ops.definition import (
    batch_norm,
    block_means,
    windows,
)
from tests.ops.restated_filters import convolved, softmax
from torch import Tensor, nn


def lesa(operator: nn.Module, x: Tensor, given: SimpleNamespace) -> Tensor:
    binary = None
    if given.binary == "attention":
        meet = torch.ones(1, x[0, ..., 0].numel(), x[0, ..., 0].numel(), dtype=torch.bool)
        binary = lesa_binary(operator.binary, x, meet, given.positions)
    return lesa_fused(operator, x, binary, given)


def lesa_window(operator: nn.Module, x: Tensor, given: SimpleNamespace) -> Tensor:
    """Every window is an image of the binary term, of which only one side of a seam meets."""
    batch, height, width, _ = x.shape
    size, binary = given.window, None
    if given.binary == "attention":
        half = size // 2 if given.shift == "alternate" and given.index % 2 else 0
        shift = (half * (height > size), half * (width > size))
        filled = F.pad(x.roll((-shift[0], -shift[1]), (1, 2)), (0, 0, 0, -width % size, 0, -height % size))
        tops, lefts = range(0, filled.shape[1], size), range(0, filled.shape[2], size)
        corners = [(top, left) for top in tops for left in lefts]
        sides = {
            position: number
            for number, group in enumerate(windows(*filled.shape[1:3], size, shift))
            for position in group
        }
        side = torch.tensor(
            [[sides[top + y, left + z] for y in range(size) for z in range(size)] for top, left in corners]
        )
        tiles = torch.cat([filled[:, top : top + size, left : left + size] for top, left in corners])
        meet = (side[:, :, None] == side[:, None, :]).repeat_interleave(batch, 0)
        found = torch.zeros_like(filled)
        parts = lesa_binary(operator.binary, tiles, meet, "two_dimensional").unflatten(0, (-1, batch))
        for (top, left), part in zip(corners, parts, strict=True):
            found[:, top : top + size, left : left + size] = part
        binary = found[:, :height, :width].roll(shift, (1, 2))
    return lesa_fused(operator, x, binary, given)


def lesa_binary(term: nn.Module, x: Tensor, meet: Tensor, positions: str) -> Tensor:
    _, height, width, channels = x.shape
    heads = term.heads
    half = channels // heads // 2
    length, place = height * width, [(y, z) for y in range(height) for z in range(width)]
    projected = batch_norm(x.flatten(1, 2) @ term.query_key_value.weight.T, term.norm)
    query, key, value = projected.unflatten(-1, (heads, -1)).split([half, half, 2 * half], -1)
    content = torch.einsum("nigc,njgc->ngij", query, key)
    if positions == "decomposed":
        between = torch.stack(  # r of j − i
            [
                term.position.rows[place[j][0] - place[i][0] + height - 1]
                + term.position.columns[place[j][1] - place[i][1] + width - 1]
                for i in range(length)
                for j in range(length)
            ]
        ).unflatten(0, (length, length))
        terms = [content, torch.einsum("nigc,ijc->ngij", query, between)]
    else:

        def entry(i: int, j: int) -> int:  # of i − j in the table
            if positions == "flattened":
                return i - j + length - 1
            (y, z), (row, column) = place[i], place[j]
            return (y - row + height - 1) * (2 * width - 1) + z - column + width - 1

        entries = torch.tensor([[entry(i, j) for j in range(length)] for i in range(length)])
        of_query, of_key, of_value = term.position.relative[:, entries].split([half, half, 2 * half])
        terms = [
            content,
            torch.einsum("nigc,cij->ngij", query, of_query),
            torch.einsum("njgc,cji->ngij", key, of_key),
        ]
    normal = batch_norm(torch.cat(terms, 1), term.similarity_norm, dim=1)
    logits = normal.unflatten(1, (-1, heads)).sum(1).masked_fill(~meet[:, None], float("-inf"))
    attention = softmax(logits)
    outputs = [torch.einsum("ngij,njgc->nigc", attention, value)]
    if positions != "decomposed":
        outputs.append(torch.einsum("ngij,cij->nigc", attention, of_value))
    y = batch_norm(torch.stack(outputs, -1).flatten(2), term.output_norm)
    return y.unflatten(-1, (-1, len(outputs))).sum(-1).unflatten(1, (height, width))


def lesa_fused(operator: nn.Module, x: Tensor, binary: Tensor | None, given: SimpleNamespace) -> Tensor:
    if given.unary == "none":
        return block_means(binary, given.stride)
    y = convolved(x, operator.unary.spatial.weight, None)
    if operator.binary is None or operator.binary.heads > 1:
        y = y @ operator.unary.mix.weight[:, :, 0, 0].T
    y = batch_norm(y, operator.unary.norm)
    if binary is None:
        return block_means(y, given.stride)
    if given.fusion == "gated":
        _, reduce, first, _, expand, second, _ = operator.fusion.gate
        hidden = batch_norm(torch.cat([y, binary], -1).relu() @ reduce.weight[:, :, 0, 0].T, first).relu()
        binary = torch.sigmoid(batch_norm(hidden @ expand.weight[:, :, 0, 0].T, second)) * binary
    if given.fusion == "static":
        binary = torch.sigmoid(operator.fusion.gate) * binary
    return block_means(y + binary, given.stride)
