"""Computations side by side: their repetitions take turns, so that a slow minute slows all of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from ablate.bench.progress import track

Name = TypeVar("Name", bound=Hashable)

SAMPLE = 0.01  # seconds that a sample lasts at least: quick computations are called many times for one
MOST_CALLS = 100  # for one sample
PATIENCE = 10.0  # seconds in a computation after which it sits out, once it has
FEWEST = 3  # samples


@dataclass(frozen=True)
class Times:
    """Seconds of one call, sample by sample."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """Seconds."""
        return float(np.median(self.samples))

    @property
    def quartiles(self) -> tuple[float, float]:
        """Seconds: a quarter of the samples lies below the first, a quarter above the second."""
        low, high = np.quantile(self.samples, (0.25, 0.75))
        return float(low), float(high)

    def as_json(self) -> dict[str, object]:
        """Median, quartiles and number of samples."""
        return {"median": self.median, "quartiles": self.quartiles, "samples": len(self.samples)}


def interleave(
    calls: Mapping[Name, Callable[[], object]], repetitions: int, what: str | None = None
) -> dict[Name, Times]:
    """Time every call `repetitions` times, in turns; one that takes long may sit out after `FEWEST`.

    Each is called before to warm up (PyTorch's own `Timer` does so for every sample, and takes no
    turns). With `what`, a bar shows the progress.
    """
    counts = {name: _calls_for_a_sample(call) for name, call in calls.items()}
    found: dict[Name, list[float]] = {name: [] for name in calls}
    turns = range(repetitions)
    for turn in turns if what is None else track(turns, what):
        order = list(calls)[:: 1 if turn % 2 == 0 else -1]  # no one is always the first
        for name in order:
            spent = sum(found[name]) * counts[name]
            if turn < FEWEST or spent < PATIENCE:
                found[name].append(_seconds(calls[name], counts[name]))
    return {name: Times(tuple(samples)) for name, samples in found.items()}


def _calls_for_a_sample(call: Callable[[], object]) -> int:
    seconds = _seconds(call, 1)
    if seconds < 100 * SAMPLE:  # else the first call is as good a guess
        seconds = _seconds(call, 1)
    return min(max(1, math.ceil(SAMPLE / seconds)), MOST_CALLS)


def _seconds(call: Callable[[], object], count: int) -> float:
    start = _now()
    for _ in range(count):
        call()
    return (_now() - start) / count


def _now() -> float:
    if torch.cuda.is_initialized():  # what was launched is to be done
        torch.cuda.synchronize()
    return time.perf_counter()
