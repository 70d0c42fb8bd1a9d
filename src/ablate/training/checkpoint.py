"""Checkpoints: everything needed to resume a run. Written atomically, loaded with weights_only=True."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from ablate.store.files import Guard, write_atomically

DAMAGE = (
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    LookupError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


@dataclass
class UnderWay:
    """Progress within the current epoch."""

    updates: int = 0  # optimizer steps done
    loss_sum: float = 0.0  # of the steps whose loss has been read
    images: int = 0
    seconds: float = 0.0
    waiting_seconds: float = 0.0  # of these, spent waiting for the next batch


@dataclass
class Checkpoint:
    """The state after an optimizer step; `history` repeats metrics.jsonl, to repair a damaged one.

    `epoch` counts whole epochs; within the next one, `under_way` is the state from which to resume.
    """

    epoch: int
    step: int  # optimizer steps since the beginning
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


def save(path: Path, checkpoint: Checkpoint, guard: Guard = nullcontext) -> None:
    """Write a checkpoint, whole or not at all, within `guard`; the previous one is kept as well."""
    state = {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
    write_atomically(following(path), lambda stream: _write(state, stream), guard)
    with guard():
        if path.exists():
            path.replace(previous(path))
        following(path).replace(path)


def _write(state: dict[str, Any], stream: IO[bytes]) -> None:
    recording = _RecordingStream(stream)
    try:
        torch.save(state, cast(IO[bytes], recording))
    except RuntimeError as error:  # torch hides that the disk is full
        raise recording.error or error from error


class _RecordingStream:
    """A stream that records why it could not be written."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.flush = stream, stream.flush
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write to the stream, and record the error that it raises."""
        try:
            return self.stream.write(data)
        except OSError as error:
            self.error = error
            raise


def load(path: Path, model: Mapping[str, Tensor] | None = None) -> tuple[Checkpoint | None, dict[Path, str]]:
    """Return the newest whole checkpoint, tensors on the CPU, and why newer files cannot be used, by path.

    Nothing on disk is changed; see `set_aside`.

    Args:
        path: where the last checkpoint is.
        model: the state of the network that a checkpoint must fit; None: not compared.

    Raises:
        OSError: a file exists but cannot be read; it may be undamaged.
    """
    damaged: dict[Path, str] = {}
    for candidate in (following(path), path, previous(path)):
        if not candidate.exists():
            continue
        try:
            return _read(candidate, model), damaged
        except pickle.UnpicklingError:  # its own message advises to load the file without any protection
            damaged[candidate] = "it is not a checkpoint of ablate"
        except DAMAGE as error:
            damaged[candidate] = (str(error).splitlines() or [type(error).__name__])[0]
    return None, damaged


def set_aside(damaged: Iterable[Path], guard: Guard = nullcontext) -> None:
    """Rename damaged files to `<name>.damaged`, so that none of them is read again."""
    for path in damaged:
        with guard():
            path.replace(path.with_name(f"{path.name}.damaged"))


def _read(path: Path, model: Mapping[str, Tensor] | None) -> Checkpoint:
    """Read a checkpoint; raises one of `DAMAGE` unless the file is whole."""
    with zipfile.ZipFile(path) as archive:  # its own checksums, which torch.load ignores
        if (part := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"{part} in it is damaged")
    found = Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    if (
        not isinstance(found.epoch, int)
        or not isinstance(found.step, int)
        or not isinstance(found.history, list)
    ):
        raise TypeError("it is not a checkpoint of ablate")
    if model is not None:
        shapes = {name: getattr(value, "shape", None) for name, value in found.model.items()}
        if shapes != {name: value.shape for name, value in model.items()}:
            raise ValueError("its weights are those of another network")
    return found


def following(path: Path) -> Path:
    """Path of the next checkpoint once it is whole, until it is renamed: a kill in between loses nothing."""
    return path.with_suffix(".next")


def previous(path: Path) -> Path:
    """Path of the checkpoint before the last one."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")
