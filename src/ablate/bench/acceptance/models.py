"""Step `models`: training steps of Swin-T with four operators, and where their time goes."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ablate import costs, hosts
from ablate.bench import memory
from ablate.bench.acceptance.steps import Setting
from ablate.bench.events import timed
from ablate.bench.profiling import profiled

OPERATORS = ("elsa", "na", "lsa", "dwconv")
BATCH, PIXELS, REPETITIONS = 128, 224, 5
FORMS = ("eager", "channels last", "compiled")
ROWS = 25  # operations of a profile's table


def run(setting: Setting) -> Iterator[dict[str, Any]]:
    """Eager for all operators first, then their profiles, then the other forms."""
    for form in FORMS:
        for op in OPERATORS[:1] if setting.toy else OPERATORS:
            if setting.toy and form == "compiled":
                continue  # a compiler for the CPU takes minutes
            step, images, macs = _step(op, form, setting)
            times = timed(step, setting.device, 1 if setting.toy else REPETITIONS)
            yield {
                "name": f"Swin-T, {op}",
                "shape": form,
                "seconds": times.median,
                "quartiles": list(times.quartiles),
                "samples": len(times.samples),
                "images_per_second": images / times.median,
                "flops_per_second": 6 * macs * images / times.median,  # forward and twice that backward
                "peak_bytes": memory.peak(step, setting.device),
            }
            if form == "eager":
                yield _profile(op, step, setting)
            del step


def _step(op: str, form: str, setting: Setting) -> tuple[Callable[[], object], int, int]:
    """A training step under autocast, with its optimiser; images of a batch; MACs of an image."""
    torch.manual_seed(0)
    host, batch, pixels = ("swin_micro", 2, 28) if setting.toy else ("swin_tiny", BATCH, PIXELS)
    size: dict[str, Any] = {"img_size": pixels, "in_chans": 3, "num_classes": 1000} if setting.toy else {}
    model = hosts.create(host, op, **size)
    macs = costs.macs(model, 1, 3, pixels, pixels)
    model = model.to(setting.device).train()
    images = torch.randn(batch, 3, pixels, pixels, device=setting.device)
    labels = torch.randint(1000, (batch,), device=setting.device)
    if form == "channels last":
        model = model.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    network: nn.Module = torch.compile(model) if form == "compiled" else model  # type: ignore[assignment]
    cuda = setting.device.type == "cuda"
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=cuda)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(setting.device.type, torch.bfloat16):
            loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()

    return step, batch, macs


def _profile(op: str, step: Callable[[], object], setting: Setting) -> dict[str, Any]:
    """The operations that take most of a step; the whole trace as a file beside the record."""
    found = profiled(step, setting.device)
    own = "self_device_time_total" if setting.device.type == "cuda" else "self_cpu_time_total"
    events = sorted(found.key_averages(), key=lambda event: -getattr(event, own))
    whole = sum(getattr(event, own) for event in events) or 1
    trace = Path(setting.folder, f"trace-{op}.json")
    found.export_chrome_trace(str(trace))
    packed = trace.with_suffix(".json.gz")
    with trace.open("rb") as source, gzip.open(packed, "wb") as target:
        shutil.copyfileobj(source, target)
    trace.unlink()
    shares = {event.key: round(getattr(event, own) / whole, 4) for event in events[:ROWS]}
    return {"name": f"profile, {op}", "shape": "eager", "shares": shares, "file": packed.name}
