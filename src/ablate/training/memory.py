"""Peak memory of a run: the device's own count on CUDA, the resident set of the process on the CPU."""

from __future__ import annotations

import re
import resource
from pathlib import Path

import torch


def reset_peak(device: torch.device) -> None:
    """Start counting anew, where the system can: a worker process trains several runs."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: resets the high-water mark VmHWM
    except OSError:
        return


def peak(device: torch.device) -> int:
    """Bytes at the highest point since `reset_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists() and (match := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return 1024 * int(match[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
