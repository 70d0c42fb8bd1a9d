"""Step `selfcheck`: every Triton kernel compiles, launches and agrees, in processes of their own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import torch

from ablate.bench.acceptance.steps import Setting
from ablate.kernels.selfcheck import cases, verdicts


def run(setting: Setting) -> Iterator[dict[str, Any]]:
    """One record for each kernel and precision, as its verdict arrives."""
    yield from _small(setting) if setting.toy else _whole(setting)


def _small(setting: Setting) -> Iterator[dict[str, Any]]:
    """One small neighborhood, in this process: the interpreter takes a minute for some others."""
    cases.HEIGHT, cases.WIDTH = 3, 4
    cases.CASES = (cases.Case(3, 1, "zero", 1, 1, 16),)
    for module in verdicts.MODULES:
        for kernel in verdicts.kernels_of(module):
            if setting.knows(_name(kernel.name, torch.float32)):
                continue
            begun = time.perf_counter()
            reason = kernel.failure(setting.device, torch.float32)
            yield _record(kernel.name, torch.float32, reason, time.perf_counter() - begun)


def _whole(setting: Setting) -> Iterator[dict[str, Any]]:
    """Every case, in several processes; verdicts that were on disk follow at the end."""
    arrived: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
    begun, seen = time.perf_counter(), set()

    def on_verdict(name: str, dtype: torch.dtype, reason: str | None) -> None:
        arrived.put(_record(name, dtype, reason))

    with ThreadPoolExecutor(1) as pool:
        preparing = pool.submit(verdicts.prepare, setting.device, on_verdict=on_verdict)
        preparing.add_done_callback(lambda _: arrived.put(None))
        while (record := arrived.get()) is not None:
            seen.add(record["name"])
            yield record
        preparing.result()
    for module in verdicts.MODULES:
        for dtype in verdicts.DTYPES:
            for name, reason in verdicts.of(module, setting.device, dtype).items():
                if _name(name, dtype) not in seen:
                    yield _record(name, dtype, reason)
    yield {"name": "all", "seconds_in_all": time.perf_counter() - begun}


def _name(kernel: str, dtype: torch.dtype) -> str:
    return f"{kernel} {dtype}"


def _record(
    kernel: str, dtype: torch.dtype, reason: str | None, seconds: float | None = None
) -> dict[str, Any]:
    found = {"name": _name(kernel, dtype), "passed": reason is None, "detail": reason}
    return found if seconds is None else {**found, "seconds_in_all": seconds}
