"""Times and memory of a call, from PyTorch's profiler."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's notes on its own starts and stops
LONGEST = 120  # characters of a name: those of PyTorch's CUDA kernels are C++ templates


def profiled(
    call: Callable[[], object], device: torch.device, *, memory: bool = False
) -> torch.profiler.profile:
    """One call under the profiler; with `memory`, what the allocator does too."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with torch.profiler.profile(activities=activities, profile_memory=memory) as found:
        call()
    return found


def shares(
    call: Callable[[], object], device: torch.device, most: int, *, trace: Path | None = None
) -> dict[str, float]:
    """Profile a call; return the operations, on CUDA the kernels, that take most of its time.

    Args:
        call: is called once.
        device: on which it computes.
        most: number of operations.
        trace: file for the whole Chrome trace.
    """
    found = profiled(call, device)
    if trace is not None:
        found.export_chrome_trace(str(trace))
    return largest(found.key_averages(), device, most)


def largest(events: Iterable[Any], device: torch.device, most: int) -> dict[str, float]:
    """Share of the time by name: on a CPU the time in an operation and in no other, on CUDA that of kernels.

    On CUDA an operation of the CPU has the time of the kernels that it launched, which are events of their
    own: counting both would halve every share.
    """
    times: Counter[str] = Counter()
    for event in events:
        if device.type != "cuda":
            times[event.key.removeprefix("aten::")] += event.self_cpu_time_total
        elif event.device_type == DeviceType.CUDA and not getattr(event, "is_user_annotation", False):
            times[event.key[:LONGEST]] += event.self_device_time_total
    whole = times.total() or 1
    return {name: time / whole for name, time in times.most_common(most)}
