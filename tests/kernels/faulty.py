"""Kernels for a CPU that fail in every way that a GPU knows; the process of a self-check loads them."""

from __future__ import annotations

import errno
import os
import signal
import time
from typing import Any

import torch
from torch import Tensor

from ablate.kernels.selfcheck import Operands, checked


def _twice(x: Tensor) -> Tensor:
    return 2 * x


def _values(found: Operands) -> tuple[Any, ...]:
    return (found.values,)


@checked(_twice, _values)
def right(x: Tensor) -> Tensor:
    """Agrees."""
    return x + x


@checked(_twice, _values)
def wrong(x: Tensor) -> Tensor:
    """Is off by a little, at one entry."""
    y = x + x
    y[-1, -1, -1, -1] += 0.1
    return y


@checked(_twice, _values)
def refused(x: Tensor) -> Tensor:
    """Does not compile."""
    raise RuntimeError("no such instruction")


@checked(_twice, _values)
def deadly(x: Tensor) -> Tensor:
    """Kills its process."""
    os.kill(os.getpid(), signal.SIGSEGV)
    return x


@checked(_twice, _values)
def endless(x: Tensor) -> Tensor:
    """Does not return."""
    time.sleep(3600)
    return x


@checked(_twice, _values)
def stopped(x: Tensor) -> Tensor:
    """Gets the signal that ends a job, as every process of it does."""
    os.kill(os.getpid(), signal.SIGTERM)
    return x


@checked(_twice, _values)
def full(x: Tensor) -> Tensor:
    """Finds no room for what it compiles."""
    raise OSError(errno.ENOSPC, "No space left on device")


@checked(_twice, _values)
def last(x: Tensor) -> Tensor:
    """Agrees, after all the others have failed."""
    return torch.add(x, x)


KERNELS = (right, wrong, refused, deadly, endless, stopped, full, last)
