"""Progress of a run: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Reporter(Protocol):
    """What the loop tells about itself."""

    def started(self, title: str, steps: int, done: int) -> None:
        """Training begins, with `done` of `steps` behind it."""

    def stepped(self, loss: float) -> None:
        """One optimiser step is done."""

    def epoch_ended(self, metrics: dict[str, Any], epochs: int) -> None:
        """An epoch is trained and evaluated."""

    def note(self, text: str) -> None:
        """Something that the user should know."""

    def finished(self) -> None:
        """Training has ended, well or not."""


class PlainReporter:
    """A line an epoch, on stderr."""

    def __init__(self) -> None:
        self.title = ""

    def started(self, title: str, steps: int, done: int) -> None:
        """Says which run it is."""
        self.title = title
        self.note(f"{title}: {steps} steps" + (f", going on from step {done}" if done else ""))

    def stepped(self, loss: float) -> None:
        """Silent: lines are for epochs."""

    def epoch_ended(self, metrics: dict[str, Any], epochs: int) -> None:
        """One line."""
        self.note(f"{self.title}: {describe_epoch(metrics, epochs)}")

    def note(self, text: str) -> None:
        """One line."""
        print(text, file=sys.stderr, flush=True)

    def finished(self) -> None:
        """Nothing to close."""


class Silent:
    """Nothing: another process of the run reports."""

    def started(self, title: str, steps: int, done: int) -> None:
        """Nothing."""

    def stepped(self, loss: float) -> None:
        """Nothing."""

    def epoch_ended(self, metrics: dict[str, Any], epochs: int) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def finished(self) -> None:
        """Nothing."""


class RichReporter:
    """A bar with the loss of the last step."""

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
        """Shows the bar."""
        self.progress.update(self.task, description=title, total=steps, completed=done)
        self.progress.start()

    def stepped(self, loss: float) -> None:
        """Moves the bar."""
        self.progress.update(self.task, advance=1, loss=loss)

    def epoch_ended(self, metrics: dict[str, Any], epochs: int) -> None:
        """A line above the bar."""
        self.progress.console.print(describe_epoch(metrics, epochs), highlight=False)

    def note(self, text: str) -> None:
        """A line above the bar."""
        self.progress.console.print(text, style="yellow", highlight=False)

    def finished(self) -> None:
        """Leaves the bar as it is."""
        self.progress.stop()


def reporter() -> Reporter:
    """The one that fits where the output goes."""
    console = Console(stderr=True)
    return RichReporter(console) if console.is_terminal else PlainReporter()


def describe_epoch(metrics: dict[str, Any], epochs: int) -> str:
    """An epoch's figures in one line."""
    return (
        f"epoch {metrics['epoch']}/{epochs}  train loss {metrics['train_loss']:.3f}  "
        f"validation top-1 {metrics['validation_top1']:.2f} %  loss {metrics['validation_loss']:.3f}  "
        f"{metrics['images_per_second']:.0f} images/s"
    )
