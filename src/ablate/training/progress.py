"""Progress of a run: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, track

from ablate.data import Loader
from ablate.store.metrics import LOSS, of_columns


class Reporter(Protocol):
    """Receiver of the loop's reports."""

    def started(self, title: str, steps: int, done: int) -> None:
        """Report that training begins, after `done` of `steps` steps."""

    def stepped(self, loss: float) -> None:
        """Report one optimizer step."""

    def epoch_ended(self, metrics: dict[str, Any], epochs: int) -> None:
        """Report an epoch, trained and evaluated."""

    def note(self, text: str) -> None:
        """Report something that the user should know."""

    def finished(self) -> None:
        """Report that training has ended, successfully or not."""


class PlainReporter:
    """One line per epoch, on stderr."""

    def __init__(self) -> None:
        self.title = ""

    def started(self, title: str, steps: int, done: int) -> None:
        """Print which run it is."""
        self.title = title
        self.note(f"{title}: {steps} steps" + (f", resuming from step {done}" if done else ""))

    def stepped(self, loss: float) -> None:
        """Print nothing: lines are for epochs."""

    def epoch_ended(self, metrics: dict[str, Any], epochs: int) -> None:
        """Print the figures of the epoch in one line."""
        self.note(f"{self.title}: {describe_epoch(metrics, epochs)}")

    def note(self, text: str) -> None:
        """Print one line."""
        print(text, file=sys.stderr, flush=True)

    def finished(self) -> None:
        """Close nothing."""


class Silent:
    """Reports nothing: rank 0 of the run does."""

    def started(self, title: str, steps: int, done: int) -> None:
        """Report nothing."""

    def stepped(self, loss: float) -> None:
        """Report nothing."""

    def epoch_ended(self, metrics: dict[str, Any], epochs: int) -> None:
        """Report nothing."""

    def note(self, text: str) -> None:
        """Report nothing."""

    def finished(self) -> None:
        """Report nothing."""


class RichReporter:
    """A progress bar with the loss of the last step."""

    def __init__(self, console: Console) -> None:
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            TimeRemainingColumn(),
            console=console,
        )
        self.task = self.progress.add_task("", loss=float("nan"))

    def started(self, title: str, steps: int, done: int) -> None:
        """Show the bar."""
        self.progress.update(self.task, description=title, total=steps, completed=done)
        self.progress.start()

    def stepped(self, loss: float) -> None:
        """Move the bar."""
        self.progress.update(self.task, advance=1, loss=loss)

    def epoch_ended(self, metrics: dict[str, Any], epochs: int) -> None:
        """Print a line above the bar."""
        self.progress.console.print(describe_epoch(metrics, epochs), highlight=False)

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self.progress.console.print(text, style="yellow", highlight=False)

    def finished(self) -> None:
        """Stop the bar and leave it visible."""
        self.progress.stop()


def reporter() -> Reporter:
    """Return the reporter that suits the output: a bar on a terminal, lines elsewhere."""
    console = Console(stderr=True)
    return RichReporter(console) if console.is_terminal else PlainReporter()


def describe_epoch(metrics: dict[str, Any], epochs: int) -> str:
    """Figures of an epoch in one line."""
    parts = [f"epoch {metrics['epoch']}/{epochs}", f"train loss {metrics['train_loss']:.3f}"]
    if (task := of_columns(metrics)) is not None:
        parts.append(f"validation {task.selecting.text(metrics[task.validation_column])}")
    if "validation_loss" in metrics:
        parts.append(LOSS.text(metrics["validation_loss"]))
    return "  ".join([*parts, f"{metrics['images_per_second']:.0f} images/s"])


class Tracked:
    """A split with a progress bar, on a terminal."""

    def __init__(self, loader: Loader, words: str) -> None:
        self.loader, self.samples, self.words = loader, loader.samples, words

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Any]:
        """Yield the loader's batches."""
        yield from track(
            self.loader.epoch(epoch, first),
            self.words,
            total=len(self.loader),
            console=Console(stderr=True),
            transient=True,
        )
