"""Times of single calls on a card: by events, with the caches flushed before each."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from ablate.bench.timing import Times

WARM_UP = 3  # calls
FLUSH = 2**29  # bytes that are written before each call: ten times the largest L2 cache


def timed(call: Callable[[], object], device: torch.device, repetitions: int) -> Times:
    """Time single calls, after some to warm up.

    On a card: between two CUDA events, after a write of 512 MiB that empties the L2 cache. That write takes
    longer than Python needs to launch one or two kernels, so that the card does not wait for them; a call of
    many small kernels includes the time that Python takes, as it does in training. On a CPU: by the clock.
    """
    for _ in range(WARM_UP):
        call()
    if device.type != "cuda":
        return Times(tuple(_seconds(call) for _ in range(repetitions)))
    flush = torch.empty(FLUSH, dtype=torch.uint8, device=device)
    pairs = []
    for _ in range(repetitions):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flush.zero_()
        begin.record()
        call()
        end.record()
        pairs.append((begin, end))
    torch.cuda.synchronize(device)
    return Times(tuple(begin.elapsed_time(end) / 1e3 for begin, end in pairs))


def _seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun
