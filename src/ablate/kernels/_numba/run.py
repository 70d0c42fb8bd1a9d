"""Compiling a loop, and running it on tensors."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from numba import njit
from torch import Tensor

from ablate.kernels import dispatch
from ablate.store.locks import LockedError, locked

FAST = {"reassoc", "contract", "nsz"}  # sums in any order; NaN and infinity are kept
COMPILATION_SECONDS = 300.0  # longer than any loop takes, on a busy machine too
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
        return _once(njit(cache=True, **options)(loop))
    except RuntimeError:  # neither the installation nor a home folder can be written
        return njit(**options)(loop)


def _once(dispatcher: Any) -> Any:
    """Make processes that start together compile a loop once: the first compiles, the others load it.

    Numba's index of its cache has no lock of its own either: of two processes that write it at once, one
    is lost.
    """
    compile_or_load = dispatcher.compile  # Numba calls it for operands of types that are new to the process

    def compile_in_turn(signature: Any) -> Any:
        with ExitStack() as stack:
            with suppress(OSError, LockedError):  # then each compiles for itself
                path = Path(dispatcher.stats.cache_path) / f"{dispatcher.py_func.__qualname__}.lock"
                stack.enter_context(locked(path, COMPILATION_SECONDS))
            return compile_or_load(signature)

    dispatcher.compile = compile_in_turn
    return dispatcher
