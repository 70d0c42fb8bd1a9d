"""A few steps of a run, to say how long the whole of it will take."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE
from typing import Any

from ablate.compose.infra import complete
from ablate.data import Loader
from ablate.errors import UserError
from ablate.store.folder import RunFolder
from ablate.training.context import RunContext
from ablate.training.loop import Training
from ablate.training.progress import Silent

WARM, TIMED = 3, 12  # optimizer steps: the first ones compile and allocate
SECONDS = 20.0  # after which no further step is timed


def side_by_side(config: Mapping[str, Any], processes: int) -> float:
    """Return the seconds that a run takes where so many are computed at a time, which slow each other down.

    Raises:
        UserError: see `seconds`; or a process failed, with the last line that it printed.
    """
    if processes == 1:
        return seconds(config)
    command = [sys.executable, "-m", "ablate.studies.trial"]
    started = [
        subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True) for _ in range(processes)
    ]
    ended = []
    with ThreadPoolExecutor(processes) as pool:
        ended = list(pool.map(lambda one: one.communicate(json.dumps(config)), started))
    for process, (_, printed) in zip(started, ended, strict=True):
        if process.returncode:
            raise UserError(
                f"a trial run failed: {(printed.strip().splitlines() or ['it printed nothing'])[-1]}",
                "train one run to see why, or leave the measurement out with --quick",
            )
    return statistics.median(float(out.splitlines()[-1]) for out, _ in ended)


def seconds(config: Mapping[str, Any]) -> float:
    """Return the seconds that a run of this configuration takes here: its setup, steps and evaluations.

    Trains a few steps in a folder that is removed, in one process, also where infra.devices is more.

    Raises:
        UserError: the run cannot exist, or its data are not here.
    """
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="ablate-plan-") as scratch:
        training = Training(RunContext(complete(config), RunFolder(Path(scratch)), Silent()))
        setup = time.perf_counter() - begun
        step = _per_step(training)
        images = _per_image(training)
    evaluated = training.epochs * training.splits.validation.samples + training.splits.test.samples
    return setup + training.steps * step + evaluated * images


def _per_step(training: Training) -> float:
    training.model.train()
    batches = _endless(training.splits.train)
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < WARM + TIMED and (len(times) <= WARM or time.perf_counter() - begun < SECONDS):
        before = time.perf_counter()
        training._train_step(batches)
        training._synchronize()
        times.append(time.perf_counter() - before)
    return sum(times[WARM:]) / len(times[WARM:])


def _per_image(training: Training) -> float:
    """Seconds for an image in evaluation, by the first batch of the validation split, the second time."""
    loader = _First(training.splits.validation)
    for _ in range(2):
        before = time.perf_counter()
        training.task.evaluate(training.model, loader, training._autocast())
        training._synchronize()
    return (time.perf_counter() - before) / loader.samples


def _endless(loader: Loader) -> Iterator[Any]:
    epoch = 0
    while True:
        yield from loader.epoch(epoch)
        epoch += 1


class _First:
    """The first batch of a split."""

    def __init__(self, loader: Loader) -> None:
        self.batch = next(iter(loader.epoch(0)))
        self.samples = min(loader.samples, len(self.batch[0]))

    def __len__(self) -> int:
        return 1

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Any]:
        yield self.batch


if __name__ == "__main__":
    print(seconds(json.load(sys.stdin)))
