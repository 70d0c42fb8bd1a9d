"""What PyTorch's profiler saw of a call."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's notes on its own starts and stops


def profiled(
    call: Callable[[], object], device: torch.device, *, memory: bool = False
) -> torch.profiler.profile:
    """One call under the profiler; with `memory`, what the allocator does too."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with torch.profiler.profile(activities=activities, profile_memory=memory) as found:
        call()
    return found


def shares(call: Callable[[], object], device: torch.device, most: int) -> dict[str, float]:
    """The operations that take most of a call, by the time spent in them and in no other."""
    own = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    times = {event.key: getattr(event, own) for event in profiled(call, device).key_averages()}
    largest = sorted(times, key=lambda name: -times[name])[:most]
    return {name.removeprefix("aten::"): times[name] / sum(times.values()) for name in largest}
