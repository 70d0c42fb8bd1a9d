"""The process of one step: `python -m ablate.bench.acceptance.worker STEP DEVICE TOY FOLDER FILE`.

Appends one JSON line to FILE for each thing measured, so that a step that is cut off leaves what it has.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import torch

from ablate.bench.acceptance.steps import Setting
from ablate.store.files import append_json_line
from ablate.training.device import float32_precision


def main(step: str, device: str, toy: str, folder: str, file: str) -> None:
    """Run a step and keep its records as they come."""
    float32_precision(tf32=False)
    module = importlib.import_module(f"ablate.bench.acceptance.{step}")
    for record in module.run(Setting(torch.device(device), toy == "toy", Path(folder))):
        append_json_line(Path(file), record)


if __name__ == "__main__":
    main(*sys.argv[1:])
