"""The process of one step.

`python -m ablate.bench.acceptance.worker STEP DEVICE SIZE FACTOR FOLDER FILE PARENT` appends one JSON line to
FILE for each thing measured, so that a step that is cut off leaves what it has. What FILE has at the
beginning is of an earlier attempt, and is not measured again. The process and all that it has started end
when PARENT, the process of the runner, ends.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

import torch

from ablate.bench.acceptance import records
from ablate.bench.acceptance.steps import Setting, chosen
from ablate.store.files import append_json_line, read_json_lines

POLL = 0.3  # seconds


def main(name: str, device: str, size: str, factor: str, folder: str, file: str, parent: str) -> None:
    """Run a step and keep its records as they come."""
    threading.Thread(target=end_with, args=(int(parent),), daemon=True).start()
    [step] = chosen(name)
    set_up(torch.device(device), step.as_trained)
    known = records.known(read_json_lines(Path(file))[0])
    setting = Setting(torch.device(device), size == "toy", Path(folder), float(factor), known)
    for record in importlib.import_module(f"ablate.bench.acceptance.{name}").run(setting):
        append_json_line(Path(file), record)


def end_with(parent: int) -> None:
    """Kill this process group once its parent has ended: it would hold the card."""
    while os.getppid() == parent:
        time.sleep(POLL)
    os.killpg(0, signal.SIGKILL)


def set_up(device: torch.device, as_trained: bool) -> None:
    """Exact float32 products; in steps that represent training, its deterministic algorithms too."""
    from ablate.training.device import deterministic_algorithms, float32_precision

    float32_precision(tf32=False)
    if as_trained:
        deterministic_algorithms(device)


if __name__ == "__main__":
    main(*sys.argv[1:])
