"""Compiling a loop, and running it on tensors."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from numba import njit
from torch import Tensor

from ablate.kernels import dispatch

FAST = {"reassoc", "contract", "nsz"}  # sums in any order; NaN and infinity are kept
_lock = threading.Lock()  # Numba's thread pool serves one caller at a time


def flat(x: Tensor) -> np.ndarray:
    """Return a flat array of float32, without a copy if the tensor is one already."""
    return x.detach().to(torch.float32).contiguous().view(-1).numpy()


def run(loop: Any, *arguments: Any) -> None:
    """On as many threads as PyTorch uses; says how long compilation took, the one time that it is needed."""
    with _lock:
        threads = torch.get_num_threads()
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        if torch.get_num_threads() != threads:  # Numba's first call has set OpenMP's, which is PyTorch's
            torch.set_num_threads(threads)
        missed, start = sum(loop.stats.cache_misses.values()), time.perf_counter()
        dispatch.threads_start()
        loop(*arguments)
        if sum(loop.stats.cache_misses.values()) > missed:
            seconds, name = time.perf_counter() - start, _name(loop.py_func)
            print(f"compiled the CPU kernel {name!r} in {seconds:.1f} s, kept for later", file=sys.stderr)


def _name(loop: Callable[..., None]) -> str:
    """'attention forward' for the loop `forward` of a module in `ablate.kernels.neighborhood_attention`."""
    modules = loop.__module__.split(".")
    kernel = modules[modules.index("kernels") + 1]
    return " ".join([kernel, *loop.__name__.strip("_").split("_")])


def compiled(loop: Callable[..., None]) -> Any:
    """Numba's dispatcher, with its cache on disk where one can be written."""
    options = {"parallel": True, "fastmath": FAST, "boundscheck": False}
    try:
        return njit(cache=True, **options)(loop)
    except RuntimeError:  # neither the installation nor a home folder can be written
        return njit(**options)(loop)
