"""Step `selfcheck`: every Triton kernel compiles, launches and agrees, in processes of their own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch

from ablate.bench.acceptance.steps import Setting
from ablate.ops.kernels.selfcheck import cases, verdicts


def run(setting: Setting) -> Iterator[dict[str, Any]]:
    """One record for each kernel and precision.

    At toy size one small neighbourhood, in this process: the interpreter takes a minute for some others.
    """
    if setting.toy:
        cases.HEIGHT, cases.WIDTH = 3, 4
        cases.CASES = (cases.Case(3, 1, "zero", 1, 1, 16),)
        for module in verdicts.MODULES:
            for kernel in verdicts.kernels_of(module):
                begun = time.perf_counter()
                reason = kernel.failure(setting.device, torch.float32)
                yield _record(kernel.name, torch.float32, reason, time.perf_counter() - begun)
        return
    begun = time.perf_counter()
    verdicts.prepare(setting.device)
    seconds = time.perf_counter() - begun
    for module in verdicts.MODULES:
        for dtype in verdicts.DTYPES:
            for name, reason in verdicts.of(module, setting.device, dtype).items():
                yield _record(name, dtype, reason)
    yield {"name": "all", "seconds_in_all": seconds}


def _record(
    name: str, dtype: torch.dtype, reason: str | None, seconds: float | None = None
) -> dict[str, Any]:
    found = {"name": f"{name} {dtype}", "passed": reason is None, "detail": reason}
    return found if seconds is None else {**found, "seconds_in_all": seconds}
