"""What a run needs to go on: written whole, read without executing anything."""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ablate.store.files import write_atomically


@dataclass
class Checkpoint:
    """The state after a whole epoch. `history` repeats metrics.jsonl, so that a damaged one can be mended."""

    epoch: int
    step: int
    model: dict[str, Any]
    optimizer: dict[str, Any]
    ema: dict[str, Any] | None
    scaler: dict[str, Any] | None
    best: dict[str, Any]  # weights that were best on validation
    best_epoch: int
    train_seconds: float
    history: list[dict[str, Any]] = field(default_factory=list)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all."""
    write_atomically(path, lambda stream: torch.save(asdict(checkpoint), stream))


def load(path: Path, device: torch.device) -> Checkpoint | str | None:
    """Read a checkpoint: None if there is none, and the reason as text if it cannot be used."""
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(
            path
        ) as archive:  # the archive's own checksums; torch.load does not compare them
            if (damaged := archive.testzip()) is not None:
                return f"{damaged} in it is damaged"
        state = torch.load(path, map_location=device, weights_only=True)
        return Checkpoint(**state)
    except (OSError, RuntimeError, TypeError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        return str(error).splitlines()[0]
