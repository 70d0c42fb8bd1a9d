"""Inspection of an operator: the filters it applies to given features, its gate, its receptive field."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ablate.errors import UserError
from ablate.ops.local import LocalOperator

Position = tuple[int, int]  # row and column of the output map


def filters(operator: LocalOperator, x: Tensor, position: Position) -> Tensor:
    """F_ij[c] of the one equation at position i, for every channel and every position j of the map.

    The output before its projection is linear in the values once the weights are made, and no
    channel sees another one's values, so that one backward pass gives F exactly, the ghost head's
    static parts included.

    Args:
        operator: a point on the two axes.
        x: features (B, H, W, C).
        position: i, on the output map.

    Returns:
        (B, C, H, W); 0 where the region does not reach.

    Raises:
        UserError: the position lies outside the map.
    """
    caught: dict[str, Tensor] = {}

    def cut(module: nn.Module, arguments: object, output: Tensor) -> Tensor:
        caught["values"] = output.detach().requires_grad_()
        return caught["values"]

    def keep(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        caught["sum"] = arguments[0]

    handles = [operator.value.register_forward_hook(cut), operator.output.register_forward_pre_hook(keep)]
    try:
        with torch.enable_grad():
            operator(x)
            found = operator.region.restore(caught["sum"], x.shape)
            (gradient,) = torch.autograd.grad(_at(found, position).sum(), caught["values"])
    finally:
        for handle in handles:
            handle.remove()
    # back through `prepare`, which is linear: a pooled token's weight is shared by the positions of its cell
    values = gradient.new_zeros(*x.shape[:3], gradient.shape[-1], requires_grad=True)
    with torch.enable_grad():
        (spread,) = torch.autograd.grad(operator.region.prepare(values), values, gradient)
    return spread.permute(0, 3, 1, 2)


def gate(operator: nn.Module, x: Tensor) -> Tensor | None:
    """LESA's gate on its binary term, (B, C, H, W) between 0 and 1; None of an operator without one."""
    module = getattr(getattr(operator, "fusion", None), "gate", None)
    if not isinstance(module, nn.Module):
        return None
    caught: list[Tensor] = []
    handle = module.register_forward_hook(lambda module, arguments, output: caught.append(output))
    try:
        with torch.no_grad():
            operator(x)
    finally:
        handle.remove()
    return caught[0]


def receptive_field(operator: nn.Module, x: Tensor, position: Position) -> Tensor:
    """Receptive field: the gradient of the output at a position by the input (Luo et al., 2016).

    The norm over all channels of the derivative of the output's channels by the input's, whatever
    path it takes: through values, weights, norms and pooled features.

    Args:
        operator: any entry of the zoo.
        x: features (B, H, W, C).
        position: on the output map.

    Returns:
        (B, H, W).
    """
    squares = torch.zeros(x.shape[:3], device=x.device)
    with torch.enable_grad():
        features = x.detach().requires_grad_()
        found = _at(operator(features), position)  # (B, C)
        for channel in range(found.shape[1]):
            (gradient,) = torch.autograd.grad(found[:, channel].sum(), features, retain_graph=True)
            squares += gradient.square().sum(-1)
    return squares.sqrt()


def _at(maps: Tensor, position: Position) -> Tensor:
    height, width = maps.shape[1:3]
    row, column = position
    if not (0 <= row < height and 0 <= column < width):
        raise UserError(
            f"position {row}, {column} lies outside the map of {height}×{width}",
            f"use rows 0 to {height - 1} and columns 0 to {width - 1}",
        )
    return maps[:, row, column]
