"""Display of a pool of workers: live bars on a terminal, one line per run elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ablate.execution.outcome import Outcome

if TYPE_CHECKING:
    from ablate.launch.local.pool import Event, WorkerPool
    from ablate.launch.submission import Submission


def show_pool(pool: WorkerPool, submission: Submission, console: Console) -> dict[str, Outcome]:
    """Run a pool, show its progress, and return the outcomes."""
    console.print(f"{pool.workers} workers, {pool.threads} thread{'s' * (pool.threads != 1)} each")
    view = (_Bars if console.is_terminal else _Lines)(submission, console, len(pool.signatures))
    with view:
        return pool.run(view.event, view.idle)


class _Lines:
    """Print one line when a run ends."""

    def __init__(self, submission: Submission, console: Console, count: int) -> None:
        self.submission, self.console, self.count = submission, console, count
        self.started: dict[str, float] = {}
        self.ended = 0

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def event(self, event: Event) -> None:
        """Show that a run has started or ended."""
        _, signature, outcome = event
        if outcome is None:
            self.started[signature] = time.monotonic()
            return
        self.ended += 1
        seconds = time.monotonic() - self.started[signature]
        line = f"[{self.ended}/{self.count}] {self.submission.title(signature)}: {outcome.state}"
        self.console.print(f"{line} in {seconds:.0f} s  {outcome.detail}", markup=False, soft_wrap=True)

    def idle(self) -> None:
        """Show nothing between runs."""


class _Bars(_Lines):
    """One bar for the study and one for each active run, in epochs."""

    def __init__(self, submission: Submission, console: Console, count: int) -> None:
        super().__init__(submission, console, count)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=console)
        self.whole = self.progress.add_task(f"[bold]{submission.manifest.name}[/] runs", total=count)
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> _Bars:
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def event(self, event: Event) -> None:
        """Show that a run has started or ended."""
        super().event(event)
        _, signature, outcome = event
        if outcome is None:
            epochs = self.submission.configs[signature]["recipe"].get("epochs")
            self.tasks[signature] = self.progress.add_task(self.submission.title(signature), total=epochs)
            return
        self.progress.remove_task(self.tasks.pop(signature))
        self.progress.advance(self.whole)

    def idle(self) -> None:
        """Read the epoch of each active run and move its bar."""
        for signature, task in self.tasks.items():
            status = self.submission.folder(signature).status()
            self.progress.update(task, completed=status.get("epoch") or 0, total=status.get("epochs"))
