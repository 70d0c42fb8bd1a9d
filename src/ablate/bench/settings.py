"""Settings of a benchmark: device, threads, shapes, repetitions."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ablate.errors import UserError, unknown
from ablate.training.device import float32_precision

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
KERNEL = 7  # K of every kernel that is timed, and side of every window
QUICK = {"batch": 2, "repetitions": 3}


@dataclass(frozen=True)
class Stage:
    """A stage of Swin-T at 224×224 pixels: maps of `size` × `size`."""

    size: int
    channels: int
    heads: int


STAGES = {number: Stage(56 >> number - 1, 96 << number - 1, 3 << number - 1) for number in range(1, 5)}


@dataclass(frozen=True)
class Settings:
    """Settings that all kinds of benchmarks share."""

    device: torch.device
    batch: int
    repetitions: int
    dtype: torch.dtype = torch.float32


def prepare(device: str, threads: int | None, batch: int, repetitions: int, dtype: str) -> Settings:
    """Check the settings and set the threads of this process.

    Raises:
        UserError: a device that is not here.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch finds no card here", "use --device cpu; see `ablate doctor`")
    float32_precision(tf32=False)  # convolutions as exact as the products and kernels beside them
    if threads is not None:
        torch.set_num_threads(threads)
    return Settings(torch.device(device), batch, repetitions, DTYPES[dtype])


def stages(written: str | None) -> dict[int, Stage]:
    """'1,4' → those stages of Swin-T; all where nothing is written.

    Raises:
        UserError: a stage that there is not.
    """
    if written is None:
        return STAGES
    found = {}
    for part in written.split(","):
        if not part.strip().isdecimal() or int(part) not in STAGES:
            raise UserError(f"--stages {written}: {part.strip()!r} is no stage", "use some of 1,2,3,4")
        found[int(part)] = STAGES[int(part)]
    return found


def chosen(what: str, names: list[str], known: list[str]) -> list[str]:
    """Return the named ones in the order of `known`; all of them if none is named.

    Raises:
        UserError: an unknown name; names the nearest one.
    """
    for name in names:
        if name not in known:
            raise unknown(what, name, known)
    return [name for name in known if name in names or not names]
