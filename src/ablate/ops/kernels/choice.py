"""Which implementation computes: the fast one of a tensor's device, or the reference, and why."""

from __future__ import annotations

import importlib
import importlib.util
import os
from functools import cache
from typing import Any

import torch

from ablate.errors import unknown

CHOICES = ("auto", "reference")
NEEDS = {"cpu": "numba", "cuda": "triton"}  # what compiles the kernels of a device
CAPABILITY = (8, 0)  # of the oldest cards that the Triton kernels are compiled for in the tests
MISSING = {device: package for device, package in NEEDS.items() if importlib.util.find_spec(package) is None}
_chosen = "auto"
_threads_started = _forked = False


def use(choice: str) -> None:
    """`auto`: the fast implementation of each device; `reference`: plain PyTorch everywhere.

    Raises:
        UserError: another word.
    """
    global _chosen
    if choice not in CHOICES:
        raise unknown("infra.kernels", choice, CHOICES)
    _chosen = choice


def threads_start() -> None:
    """Called by what starts the threads of compiled loops, which no fork of the process takes along."""
    global _threads_started
    _threads_started = True


def _notice_fork() -> None:
    global _forked
    _forked = _threads_started


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_notice_fork)


def hindrance(device: str) -> str | None:
    """Why a device has no fast implementation here; None if it has one."""
    if device not in NEEDS:
        return f"ablate has no kernels for {device}: PyTorch computes all"
    if device == "cuda" and (reason := _lacking_card()) is not None:
        return reason
    if device in MISSING:
        package = MISSING[device]
        return f"{package.title()} is not installed: PyTorch computes all; pip install {package}"
    if device == "cpu" and _forked:
        return "this process was forked from one that had threads for its kernels: PyTorch computes all"
    return None


@torch.compiler.assume_constant_result  # a graph takes the answer, and would look through a cache
def _lacking_card() -> str | None:
    return _without_card()


@cache
def _without_card() -> str | None:
    if not torch.cuda.is_available():
        return "PyTorch finds no CUDA device here"
    cards = range(torch.cuda.device_count())
    oldest = min(torch.cuda.get_device_capability(card) for card in cards)
    if oldest < CAPABILITY:
        needed, found = (".".join(map(str, version)) for version in (CAPABILITY, oldest))
        return f"compute capability {needed} is needed, a card here has {found}: PyTorch computes all"
    return None


def fast(x: torch.Tensor) -> bool:
    """Whether a fast implementation computes with this tensor; also asked while a graph is compiled."""
    return _chosen == "auto" and x.dtype != torch.float64 and hindrance(x.device.type) is None


def implementation(x: torch.Tensor, kernel: str) -> Any:
    """The module whose functions compute this kernel, `sums`, `attention` or `mixed`, with this tensor."""
    name = x.device.type if fast(x) else "reference"
    return importlib.import_module(f"ablate.ops.kernels.{kernel}.{name}")
