"""Step `models`: training steps of Swin-T with four operators, and where their time goes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ablate import hosts
from ablate.bench import memory
from ablate.bench.acceptance import archive
from ablate.bench.acceptance.steps import Setting
from ablate.bench.events import timed
from ablate.bench.profiling import shares
from ablate.ops import costs

OPERATORS = ("elsa", "na", "lsa", "dwconv")
BATCH, PIXELS, REPETITIONS = 128, 224, 5
EAGER, FUSED, CHANNELS_LAST, COMPILED = (
    *("eager", "eager, scaled_dot_product_attention"),
    *("channels last", "compiled"),
)
ROWS = 25  # operations of a profile
TRACES = "traces.zip"  # of the eager steps


def run(setting: Setting) -> Iterator[dict[str, Any]]:
    """Eager for all operators first, then the other forms, with a profile of each."""
    for op, form in _measured(setting.toy):
        names = [(f"Swin-T, {op}", form), (f"profile, {op}", form)]
        if not all(setting.knows(*name) for name in names):
            with _fused_attention() if form == FUSED else nullcontext():
                yield from _records(op, form, setting)


def _measured(toy: bool) -> list[tuple[str, str]]:
    """Operators and forms in their order; at toy size without compilation, which takes minutes on a CPU."""
    if toy:
        return [("elsa", EAGER), ("lsa", FUSED), ("elsa", CHANNELS_LAST)]
    forms = [(op, form) for form in (EAGER, CHANNELS_LAST, COMPILED) for op in OPERATORS]
    return [*forms[: len(OPERATORS)], ("lsa", FUSED), *forms[len(OPERATORS) :]]


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Switch deterministic algorithms off: with them `lsa` computes attention from its parts.

    The difference is their price.
    """
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    backends = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]
    try:
        with sdpa_kernel([*backends, SDPBackend.MATH]):
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def _records(op: str, form: str, setting: Setting) -> Iterator[dict[str, Any]]:
    """Time and memory of a training step, then its profile."""
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
    yield {"name": f"profile, {op}", "shape": form, **_profile(op, form, step, setting)}


def _step(op: str, form: str, setting: Setting) -> tuple[Callable[[], object], int, int]:
    """A training step under autocast, with its optimiser; images of a batch; MACs of an image."""
    from ablate.training import network  # what a run does to a network

    torch.manual_seed(0)
    host, batch, pixels = ("swin_micro", 2, 28) if setting.toy else ("swin_tiny", BATCH, PIXELS)
    size: dict[str, Any] = {"img_size": pixels, "in_chans": 3, "num_classes": 1000} if setting.toy else {}
    model = hosts.create(host, op, **size)
    macs = costs.macs(model, 1, 3, pixels, pixels)
    layout = torch.channels_last if form == CHANNELS_LAST else torch.contiguous_format
    model = network.lay_out(model.to(setting.device).train(), layout)
    images = torch.randn(batch, 3, pixels, pixels, device=setting.device).contiguous(memory_format=layout)
    labels = torch.randint(1000, (batch,), device=setting.device)
    forward = network.compiled(model) if form == COMPILED else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=setting.device.type == "cuda")

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(setting.device.type, torch.bfloat16):
            loss = F.cross_entropy(forward(images), labels)
        loss.backward()
        optimizer.step()

    return step, batch, macs


def _profile(op: str, form: str, step: Callable[[], object], setting: Setting) -> dict[str, Any]:
    """The operations that take most of a step; of the eager step also the whole trace, in an archive."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, f"{op}.json") if form == EAGER else None
        found = shares(step, setting.device, ROWS, trace=trace)
        content = {} if trace is None else {trace.name: trace.read_bytes()}
    profile: dict[str, Any] = {"shares": {name: round(share, 4) for name, share in found.items()}}
    if content:
        archive.add(setting.folder / TRACES, content)
        profile["file"] = f"{TRACES}/{op}.json"
    return profile
