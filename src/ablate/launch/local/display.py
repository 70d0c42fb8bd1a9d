"""Display of a pool of workers: live bars on a terminal, one line per run elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ablate.execution.outcome import Outcome
from ablate.execution.status import expected_end, share_done

if TYPE_CHECKING:
    from ablate.launch.local.pool import Event, WorkerPool
    from ablate.launch.submission import Submission


def show_pool(pool: WorkerPool, submission: Submission, console: Console) -> dict[str, Outcome]:
    """Run a pool, show its progress, and return the outcomes."""
    console.print(f"{pool.workers} workers, {pool.threads} thread{'s' * (pool.threads != 1)} each")
    view = (_Bars if console.is_terminal else _Lines)(submission, console, len(pool.signatures), pool.workers)
    with view:
        return pool.run(view.event, view.idle)


class _Lines:
    """Print one line when a run ends."""

    def __init__(self, submission: Submission, console: Console, count: int, workers: int) -> None:
        self.submission, self.console, self.count, self.workers = submission, console, count, workers
        self.started: dict[str, float] = {}
        self.took: list[float] = []  # seconds of the runs that have ended
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
        self.took.append(seconds)
        line = f"[{self.ended}/{self.count}] {self.submission.title(signature)}: {outcome.state}"
        self.console.print(f"{line} in {seconds:.0f} s  {outcome.detail}", markup=False, soft_wrap=True)

    def idle(self) -> None:
        """Show nothing between runs."""


class _Bars(_Lines):
    """One bar for the study and one for each active run, with the time that is left."""

    def __init__(self, submission: Submission, console: Console, count: int, workers: int) -> None:
        super().__init__(submission, console, count, workers)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[done]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self.progress = Progress(*columns, console=console, expand=True)
        name = f"[bold]{escape(submission.manifest.name)}[/]"
        self.whole = self.progress.add_task(name, total=count, done=f"0/{count} runs", left="")
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
            title = escape(self.submission.title(signature))
            self.tasks[signature] = self.progress.add_task(title, total=1.0, done="", left="")
        else:
            self.progress.remove_task(self.tasks.pop(signature))
            self.progress.update(self.whole, completed=self.ended, done=f"{self.ended}/{self.count} runs")

    def idle(self) -> None:
        """Read the steps of each active run and move its bar."""
        left = {}
        for signature, task in self.tasks.items():
            record = self.submission.folder(signature).status()
            if (end := expected_end(record)) is not None:
                left[signature] = max(0.0, (end - datetime.now(UTC)).total_seconds())
            done = f"epoch {record.get('epoch') or 0}/{record.get('epochs') or '?'}"
            said = f"{_clock(left[signature])} left" if signature in left else ""
            self.progress.update(task, completed=share_done(record), done=done, left=said)
        if (seconds := self._left(left)) is not None:
            self.progress.update(self.whole, left=f"about {_clock(seconds)} left")

    def _left(self, active: Mapping[str, float]) -> float | None:
        """Seconds until all runs have ended, if those to come take as long; None at first."""
        now = time.monotonic()
        whole = [now - self.started[signature] + seconds for signature, seconds in active.items()]
        whole += self.took
        if not whole:
            return None
        mean = sum(whole) / len(whole)
        under_way = [active.get(signature, mean) for signature in self.tasks]
        to_come = (self.count - self.ended - len(self.tasks)) * mean
        return max([(sum(under_way) + to_come) / self.workers, *under_way])


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
