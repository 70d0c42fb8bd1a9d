"""The memory that a computation needs beside its inputs, at its highest point."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from ablate.bench.profiling import profiled


def peak(call: Callable[[], object], device: torch.device) -> int:
    """Bytes from PyTorch's allocator at the highest point of a call, beyond what was allocated before.

    What libraries hold outside of it is not seen, such as oneDNN's packed weights.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    recorded: Any = profiled(call, device, memory=True).profiler
    changes = [event for event in recorded.kineto_results.events() if event.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    return max(accumulate((event.nbytes() for event in changes), initial=0))


def size(tensors: Iterable[Tensor]) -> int:
    """Bytes of their elements."""
    return sum(x.numel() * x.element_size() for x in tensors)
