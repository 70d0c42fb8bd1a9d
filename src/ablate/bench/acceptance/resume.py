"""Step `resume`: a run that is interrupted within an epoch ends with the same bits as one that is not.

The runs of all operators are computed side by side: most of their time goes to starting a process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ablate.bench.acceptance.steps import Setting, chosen, limit
from ablate.execution.interruption import INTERRUPTION
from ablate.store.folder import RunFolder
from ablate.training import checkpoint

OPERATORS = ("lsa", "elsa")
PATIENCE = 0.9  # of the step's limit: a training that has not ended by then is reported
DELAYS = (0.2, 0.05)  # seconds after the first epoch; the next one if a run had ended already
POLL = 0.02


class FailedTrainingError(RuntimeError):
    """A training ended with an exit code that it should not have."""


@dataclass
class Training:
    """The process of one training, its folder of runs and the file of its output."""

    process: subprocess.Popen[bytes]
    runs: Path
    output: Path
    deadline: float

    def ended(self, *codes: int) -> None:
        """Wait for the end.

        Raises:
            FailedTrainingError: Another exit code than these; quotes the last line of the output.
        """
        try:
            code = self.process.wait(max(self.deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise FailedTrainingError(f"the training in {self.runs.name} was too slow") from None
        written = self.output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        print("\n".join(written[-20:]), flush=True)
        if code not in codes:
            said = written[-1].strip()[:300] if written else "no output"
            raise FailedTrainingError(f"the training in {self.runs.name} ended with exit code {code}: {said}")

    def folder(self) -> RunFolder:
        """The folder of its only run.

        Raises:
            FailedTrainingError: There is none.
        """
        configs = list(self.runs.glob("*/config.yaml"))
        if len(configs) != 1:
            raise FailedTrainingError(f"the training in {self.runs.name} left {len(configs)} runs, not one")
        return RunFolder(configs[0].parent)

    def interrupt(self, delay: float) -> None:
        """Send SIGTERM so many seconds after the first epoch."""
        while self.process.poll() is None and time.monotonic() < self.deadline:
            if any(path.stat().st_size for path in self.runs.glob("*/metrics.jsonl")):
                time.sleep(delay)
                self.process.send_signal(signal.SIGTERM)
                break
            time.sleep(POLL)


def run(setting: Setting) -> Iterator[dict[str, Any]]:
    """One run without a pause and one that gets SIGTERM within an epoch, for all operators at once."""
    operators = [op for op in (OPERATORS[:1] if setting.toy else OPERATORS) if not setting.knows(_name(op))]
    [step] = chosen("resume")
    begun = time.monotonic()
    deadline = begun + PATIENCE * limit(step, setting.toy, setting.factor)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = {op: _train(op, folder / f"{op}-whole", setting, deadline) for op in operators}
        with ThreadPoolExecutor(len(OPERATORS)) as pool:
            resumed = {op: pool.submit(_resumed, op, folder, setting, deadline) for op in operators}
        for op in operators:
            try:
                second = resumed[op].result()
                whole[op].ended(0)
                second.ended(0)
                differing = _differing(whole[op].folder(), second.folder())
            except FailedTrainingError as error:
                differing = [str(error)]
            yield {"name": _name(op), "passed": not differing, "detail": "; ".join(differing) or None}
        for training in whole.values():
            training.process.kill()  # it still runs if the other one failed
            training.process.wait()
    yield {"name": "all", "seconds_in_all": time.monotonic() - begun}


def _name(op: str) -> str:
    return f"resume {op}"


def _train(op: str, runs: Path, setting: Setting, deadline: float) -> Training:
    """Start a training whose epochs take a second: by 40 batches of 250 images, at toy size by 24 of 4."""
    small = ["data=synthetic", "data.train=96", "data.validation=16", "data.test=16", "recipe.batch_size=4"]
    large = ["data=fashion_mini", "recipe.batch_size=250", "recipe.precision=bfloat16", "recipe.epochs=3"]
    command = [sys.executable, "-P", "-m", "ablate", "train", f"op={op}", "recipe=debug"]
    command += small if setting.toy else large
    command += [f"infra.runs_dir={runs}", f"infra.device={setting.device}", "infra.tracking=none"]
    output = runs.with_name(f"{runs.name}.txt")
    with output.open("ab") as stream:
        process = subprocess.Popen(command, env=os.environ.copy(), stdout=stream, stderr=stream)
    return Training(process, runs, output, deadline)


def _resumed(op: str, folder: Path, setting: Setting, deadline: float) -> Training:
    """Interrupt a training within an epoch and start it again; try anew if it had ended before the signal.

    Raises:
        FailedTrainingError: It failed, or no attempt interrupted it within an epoch.
    """
    for delay in DELAYS:
        training = _train(op, folder / f"{op}-{delay}", setting, deadline)
        training.interrupt(delay)
        training.ended(0, INTERRUPTION)
        state, _ = checkpoint.load(training.folder().checkpoint_path)
        if state is not None and state.under_way is not None:
            return _train(op, training.runs, setting, deadline)
    raise FailedTrainingError("no attempt interrupted it within an epoch: nothing is shown")


def _differing(first: RunFolder, second: RunFolder) -> list[str]:
    """Describe the differences of two finished runs."""
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
