"""Kernel dispatch: choose the Numba, Triton or reference implementation, and report the reason."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
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
_fallbacks: dict[str, str] = {}


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
    """Record that this process starts Numba threads. Call this before they start.

    A forked child does not inherit threads, so it must not use these kernels.
    """
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
    """Return True if a compiled kernel handles `x`. Safe to call under torch.compile."""
    return _chosen == "auto" and x.dtype != torch.float64 and hindrance(x.device.type) is None


def implementation(x: torch.Tensor, kernel: str) -> Any:
    """Return the module whose functions compute a kernel with this tensor.

    Args:
        x: decides by its device and dtype.
        kernel: the operation, a folder of `ablate.kernels`.
    """
    name = NEEDS[x.device.type] if fast(x) else "reference"
    if name == "reference" and _chosen == "auto" and x.dtype != torch.float64:
        note_fallback(kernel, str(hindrance(x.device.type)))
    return importlib.import_module(f"ablate.kernels.{kernel}.{name}")


def note_fallback(kernel: str, reason: str) -> None:
    """Remember that PyTorch computes a kernel although a compiled one was requested."""
    _fallbacks[kernel] = reason


def fallbacks() -> dict[str, str]:
    """Kernels of this process that PyTorch computed although compiled ones were requested → why."""
    return dict(_fallbacks)


@contextmanager
def recorded_fallbacks() -> Iterator[dict[str, str]]:
    """Collect the fallbacks of a block, as `fallbacks` reports them."""
    global _fallbacks
    before, _fallbacks = _fallbacks, {}
    found = _fallbacks
    try:
        yield found
    finally:
        _fallbacks = before | found
