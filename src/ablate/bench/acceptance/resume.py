"""Step `resume`: a run that is interrupted within an epoch ends with the same bits as one that is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ablate.bench.acceptance.steps import Setting
from ablate.store.folder import RunFolder
from ablate.training import checkpoint

OPERATORS = ("elsa", "lsa")
PATIENCE = 120.0  # seconds until a run has ended its first epoch
DELAYS = (0.3, 0.15, 0.6, 0.05)  # seconds into the second epoch; the next one where a run had ended already
POLL = 0.02


def run(setting: Setting) -> Iterator[dict[str, Any]]:
    """For each operator: one run without a pause, one that gets SIGTERM within its second epoch."""
    for op in ("dwconv",) if setting.toy else OPERATORS:
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder, "whole")
            begun = time.perf_counter()
            _train(op, whole, setting).wait()
            yield {"name": f"train {op}", "seconds_in_all": time.perf_counter() - begun}
            for delay in DELAYS:
                parts = Path(folder, f"parts-{delay}")
                if within := _interrupt(_train(op, parts, setting), parts, delay):
                    break
            _train(op, parts, setting).wait()
            differing = _differing(_folder(whole), _folder(parts))
            if not within:
                differing.append("no attempt interrupted it within an epoch: nothing is shown")
            yield {"name": f"resume {op}", "passed": not differing, "detail": "; ".join(differing) or None}


def _train(op: str, folder: Path, setting: Setting) -> subprocess.Popen[bytes]:
    data = ["data=synthetic", "data.train=192"] if setting.toy else ["data=fashion_mini"]
    size = ["recipe.batch_size=4"] if setting.toy else ["recipe.batch_size=32"]
    command = [sys.executable, "-m", "ablate", "train", f"op={op}", "recipe=debug", "recipe.epochs=2"]
    command += [
        *data,
        *size,
        f"infra.runs_dir={folder}",
        f"infra.device={setting.device}",
        "infra.tracking=none",
    ]
    if not setting.toy:
        command.append("recipe.precision=bfloat16")
    return subprocess.Popen(command, env=os.environ.copy())


def _interrupt(process: subprocess.Popen[bytes], folder: Path, delay: float) -> bool:
    """Send SIGTERM so many seconds after the first epoch; True if the run then stopped within the second."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        if any(path.stat().st_size for path in folder.glob("*/metrics.jsonl")):
            time.sleep(delay)
            process.send_signal(signal.SIGTERM)
            break
        time.sleep(POLL)
    process.wait()
    state, _ = checkpoint.load(_folder(folder).checkpoint_path)
    return state is not None and state.under_way is not None


def _folder(runs_dir: Path) -> RunFolder:
    [config] = runs_dir.glob("*/config.yaml")
    return RunFolder(config.parent)


def _differing(first: RunFolder, second: RunFolder) -> list[str]:
    """What differs between two finished runs, in words."""
    found = []
    if first.metrics_path.read_bytes() != second.metrics_path.read_bytes():
        found.append("metrics.jsonl differs")
    one, other = (checkpoint.load(folder.checkpoint_path)[0] for folder in (first, second))
    if one is None or other is None:
        return [*found, "a run has no checkpoint"]
    differing = [name for name, weight in one.model.items() if not torch.equal(weight, other.model[name])]
    if differing:
        found.append(f"{len(differing)} of {len(one.model)} weights differ, {differing[0]} first")
    return found
