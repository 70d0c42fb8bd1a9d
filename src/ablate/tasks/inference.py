"""Scores of each pixel of an image: whole or in windows, at several sizes, mirrored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ablate.data.options import require_whole
from ablate.errors import UserError, unknown
from ablate.tasks.upernet import enlarged

Size = tuple[int, int]  # (height, width)
Network = Callable[[Tensor], Tensor]  # (B, C, H, W) → logits (B, classes, H, W), float32

WHOLE, SLIDE = "whole", "slide"


@dataclass(frozen=True)
class Evaluation:
    """Settings of `task.evaluation`; the defaults are one forward pass for each image."""

    mode: str = WHOLE
    crop: int = 512
    stride: int = 341
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        if self.mode not in (WHOLE, SLIDE):
            raise unknown("task.evaluation.mode", self.mode, (WHOLE, SLIDE))
        require_whole("task.evaluation.crop", self.crop, at_least=1)
        require_whole("task.evaluation.stride", self.stride, at_least=1)
        if self.stride > self.crop:
            raise UserError(
                f"task.evaluation.stride={self.stride} is more than task.evaluation.crop={self.crop}: "
                "pixels between two windows would have no score",
                f"use task.evaluation.stride={self.crop} or less",
            )
        if not self.scales or min(self.scales) <= 0:
            raise UserError(
                f"task.evaluation.scales={list(self.scales)}",
                "give one or more positive factors of the image's size, e.g. [0.5,0.75,1,1.25,1.5,1.75]",
            )

    @property
    def one_pass(self) -> bool:
        """True if the network sees each image once, whole and at its own size."""
        return self.mode == WHOLE and self.scales == (1.0,) and not self.flip


def scores(network: Network, images: Tensor, size: Size, target: Size, evaluation: Evaluation) -> Tensor:
    """Return logits (B, classes, *target), or logarithms of the mean probabilities of several passes.

    Both have the same softmax as the published evaluation: logits of windows are averaged, and so are
    probabilities over sizes and mirror images, after logits were resized to `target`.

    Args:
        network: one forward pass.
        images: (B, C, H, W).
        size: to which the images are resized at scale 1.
        target: size of the label maps.
        evaluation: the passes.
    """
    passes = len(evaluation.scales) * (2 if evaluation.flip else 1)
    total: Tensor | None = None
    for scale in evaluation.scales:
        resized = _resized(images, tuple(max(1, int(side * scale + 0.5)) for side in size))
        for mirrored in (False, True) if evaluation.flip else (False,):
            logits = _pass(network, resized.flip(3) if mirrored else resized, evaluation)
            logits = _resized(logits, target)
            if passes == 1:
                return logits
            probabilities = (logits.flip(3) if mirrored else logits).softmax(1)
            total = probabilities if total is None else total.add_(probabilities)
    assert total is not None
    return total.div_(passes).clamp_(min=torch.finfo(total.dtype).tiny).log_()


def _pass(network: Network, images: Tensor, evaluation: Evaluation) -> Tensor:
    return network(images) if evaluation.mode == WHOLE else slid(network, images, evaluation)


def slid(network: Network, images: Tensor, evaluation: Evaluation) -> Tensor:
    """Return the mean of the logits of all windows that a pixel is in: (B, classes, H, W)."""
    height, width = images.shape[-2:]
    total = count = None
    for top, bottom in spans(height, evaluation.crop, evaluation.stride):
        for left, right in spans(width, evaluation.crop, evaluation.stride):
            logits = network(images[..., top:bottom, left:right])
            if total is None or count is None:
                total = logits.new_zeros(*logits.shape[:2], height, width)
                count = logits.new_zeros(height, width)
            total[..., top:bottom, left:right] += logits
            count[top:bottom, left:right] += 1
    assert total is not None
    assert count is not None
    return total / count


def spans(length: int, crop: int, stride: int) -> list[tuple[int, int]]:
    """Return the bounds of windows along one side; the last one is moved inwards."""
    number = max(length - crop + stride - 1, 0) // stride + 1
    ends = [min(index * stride + crop, length) for index in range(number)]
    return [(max(end - crop, 0), end) for end in ends]


def _resized(x: Tensor, size: tuple[int, ...]) -> Tensor:
    return x if tuple(x.shape[-2:]) == size else enlarged(x, size)
