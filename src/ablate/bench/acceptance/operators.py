"""Step `operators`: every operator forward and backward, by compiled kernels and by plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ablate import ops
from ablate.bench import memory
from ablate.bench.acceptance.inputs import OnDevice, draw
from ablate.bench.acceptance.steps import Setting
from ablate.bench.computation import Computation
from ablate.bench.events import timed
from ablate.bench.ops import parameters
from ablate.bench.settings import STAGES, Stage
from ablate.kernels.dispatch import recorded_fallbacks

BATCH, REPETITIONS = 64, 5
STAGE = STAGES[2]  # 28 × 28 with 192 channels
TOY = Stage(7, 32, 2)
FIRST = ("lsa", "elsa", "na", "dwconv")  # should the step be cut off
TOYS = ("lsa", "elsa")


def run(setting: Setting) -> Iterator[dict[str, Any]]:
    """Training steps of a float32 map under autocast to bfloat16, as after a LayerNorm."""
    for name in sorted(ops.names(), key=lambda name: (name not in FIRST, name)):
        if setting.toy and name not in TOYS:
            continue
        for implementation, label in (("auto", "compiled kernels"), ("reference", "plain PyTorch")):
            if not setting.knows(name, label):
                yield _measured(name, implementation, label, setting)


def _measured(name: str, implementation: str, label: str, setting: Setting) -> dict[str, Any]:
    """One record; without figures where the memory of the card does not suffice or a kernel fell back."""
    head = {"name": name, "shape": label}
    try:
        computation = _computation(name, implementation, setting)
        with recorded_fallbacks() as fallbacks:
            computation.training()
        if fallbacks:
            said = "; ".join(f"{kernel}: {reason}" for kernel, reason in fallbacks.items())
            return {**head, "passed": False, "detail": f"fell back to PyTorch: {said}"}
        times = timed(computation.training, setting.device, 1 if setting.toy else REPETITIONS)
        peak = memory.peak(computation.training, setting.device)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return {**head, "error": "more memory than the card has"}
    figures = {"seconds": times.median, "quartiles": list(times.quartiles), "samples": len(times.samples)}
    return {**head, **figures, "peak_bytes": peak}


def _computation(name: str, implementation: str, setting: Setting) -> Computation:
    torch.manual_seed(0)
    stage, batch = (TOY, 2) if setting.toy else (STAGE, BATCH)
    module = ops.create(name, stage.channels, heads=stage.heads, resolution=(stage.size, stage.size))
    module = module.to(setting.device).train()
    shape = (batch, stage.size, stage.size, stage.channels)
    learned = draw({"the input": shape}, setting.device, torch.float32)
    call = partial(_under_autocast, module, learned["the input"])
    return OnDevice(call, {**learned, **parameters(module)}, implementation)


def _under_autocast(module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, torch.bfloat16):
        return module(x)
