"""Step `machine`: record versions, hardware and clocks."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import torch

from ablate.bench.acceptance.steps import Setting
from ablate.bench.ceiling import measure
from ablate.execution import environment

QUERY = (
    "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,"
    "power.limit,temperature.gpu,memory.total"
)


def run(setting: Setting) -> Iterator[dict[str, Any]]:
    """Yield versions and hardware, nvidia-smi's readings, and peak rates of a matrix product and a copy."""
    card = torch.cuda.get_device_name(setting.device) if setting.device.type == "cuda" else "CPU"
    found = environment.describe(card, torch.get_num_threads())
    del found["diff"]
    yield {"name": "environment", **found}
    if shutil.which("nvidia-smi") is not None:
        command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
        values = [value.strip() for value in said.stdout.strip().partition("\n")[0].split(",")]
        yield {"name": "nvidia-smi", **dict(zip(QUERY.split(","), values, strict=False))}
    if not setting.toy:
        for dtype in (torch.bfloat16, torch.float32):
            if not setting.knows(name := f"ceiling {dtype}"):
                yield {"name": name, **measure(setting.device, dtype).as_json()}
