"""What a run needs to go on: written whole, read without executing anything."""

from __future__ import annotations

import pickle
import struct
import zipfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import IO, Any, cast

import torch

from ablate.store.files import write_atomically

DAMAGE = (
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    EOFError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


@dataclass
class UnderWay:
    """Progress within the current epoch."""

    updates: int = 0  # optimiser steps done
    loss_sum: float = 0.0  # of the steps whose loss has been read
    images: int = 0
    seconds: float = 0.0
    waiting_seconds: float = 0.0  # of these, spent waiting for the next batch


@dataclass
class Checkpoint:
    """The state after an optimiser step; `history` repeats metrics.jsonl, to mend a damaged one.

    `epoch` counts whole epochs; within the next one, `under_way` has what it takes to go on.
    """

    epoch: int
    step: int  # optimiser steps since the beginning
    model: dict[str, Any]
    optimizer: dict[str, Any]
    ema: dict[str, Any] | None
    scaler: dict[str, Any] | None
    best: dict[str, Any]  # weights that were best on validation
    best_epoch: int
    train_seconds: float
    history: list[dict[str, Any]] = field(default_factory=list)
    under_way: dict[str, Any] | None = None  # `UnderWay` and the generators; None between epochs
    waiting_seconds: float = 0.0  # of train_seconds, spent waiting for the next batch


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all; the one before stays beside it."""
    state = {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
    write_atomically(following(path), lambda stream: _write(state, stream))
    if path.exists():
        path.replace(previous(path))
    following(path).replace(path)


def _write(state: dict[str, Any], stream: IO[bytes]) -> None:
    told = _Told(stream)
    try:
        torch.save(state, cast(IO[bytes], told))
    except RuntimeError as error:  # what torch makes of a full disk says nothing about the disk
        raise told.error or error from error


class _Told:
    """A stream that remembers why it could not be written."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.flush = stream, stream.flush
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Raises what the stream raises."""
        try:
            return self.stream.write(data)
        except OSError as error:
            self.error = error
            raise


def load(path: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint, tensors on the CPU, and what is wrong with those that are not.

    A damaged file is set aside as `<name>.damaged`.

    Raises:
        OSError: a file is there but cannot be read: that it would be damaged is not known.
    """
    notes: list[str] = []
    for candidate in (following(path), path, previous(path)):
        if not candidate.exists():
            continue
        try:
            with zipfile.ZipFile(candidate) as archive:  # its own checksums, which torch.load ignores
                if (part := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(f"{part} in it is damaged")
            return Checkpoint(**torch.load(candidate, map_location="cpu", weights_only=True)), notes
        except DAMAGE as error:
            notes.append(f"{candidate.name} cannot be used ({str(error).splitlines()[0]})")
            candidate.replace(candidate.with_name(f"{candidate.name}.damaged"))
    return None, notes


def following(path: Path) -> Path:
    """Where the next checkpoint is whole, until it takes its place: a process may be killed in between."""
    return path.with_suffix(".next")


def previous(path: Path) -> Path:
    """Where the checkpoint before the last one is."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")
