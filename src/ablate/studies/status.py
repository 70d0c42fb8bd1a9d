"""`ablate status`: where every run of a study stands."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ablate.commands import command
from ablate.errors import UserError
from ablate.results import formats
from ablate.store import jobs, manifest
from ablate.store.folder import DAMAGED, FAILED, FINISHED, INTERRUPTED, PENDING, RUNNING, RunFolder
from ablate.studies import states
from ablate.studies.states import AGAIN, LOST, MISSING, Overview, Standing

STYLES = {
    FINISHED: "green",
    RUNNING: "cyan",
    FAILED: "red",
    INTERRUPTED: "yellow",
    LOST: "red",
    DAMAGED: "red",
}
ORDER = (FINISHED, RUNNING, PENDING, INTERRUPTED, FAILED, LOST, DAMAGED, MISSING)
# Figures of the last line of speed.jsonl, shown where a run has them: title of the column and its format.
SPEED: dict[str, tuple[str, Callable[[float], str]]] = {
    "images_per_second": ("images/s", lambda value: formats.plain(value, 0)),
    "data_wait": ("data wait", formats.share),
    "peak_memory_bytes": ("memory", formats.memory),
    "mfu": ("MFU", formats.share),
}
MOST = 100  # rows of a table; of a larger study, those at work and those that went wrong
SECONDS = 10.0  # between two looks: each asks the cluster's controller


def show(runs_dir: Path, study: str, everything: bool = False) -> None:
    """Print a table of the study's runs and the command that goes on.

    Raises:
        UserError: no such study.
    """
    overview = states.of_study(runs_dir, study)
    console = Console(highlight=False)
    most = len(overview.runs) if everything else MOST
    console.print(_view(runs_dir, overview, most, console.width))
    for path in jobs.damaged(runs_dir, study):
        said = f"{path} is damaged: which runs are in its jobs is not known"
        console.print(said, soft_wrap=True, markup=False)
    if again := overview.select(AGAIN):
        count = f"{len(again)} run{'s' * (len(again) != 1)}"
        retry = command("retry", study, runs_dir=runs_dir)
        console.print(f"to run {count} again: {retry}", soft_wrap=True, markup=False)


def watch(runs_dir: Path, study: str) -> None:
    """Show the study until nothing is at work or in a job any more; Ctrl-C ends the display only.

    Raises:
        UserError: no such study.
    """
    overview, console, said = states.of_study(runs_dir, study), Console(highlight=False), ""
    if not console.is_terminal:
        while True:
            if (now := _summary(overview)) != said:
                console.print(now, markup=False)
                said = now
            if not overview.active:
                return
            time.sleep(SECONDS)
            overview = states.of_study(runs_dir, study)
    rows = max(5, console.height - 6)
    with Live(_view(runs_dir, overview, rows, console.width), console=console, auto_refresh=False) as live:
        while overview.active:
            time.sleep(SECONDS)
            overview = states.of_study(runs_dir, study)
            live.update(_view(runs_dir, overview, rows, console.width), refresh=True)


def list_studies(runs_dir: Path) -> None:
    """Print the studies under a folder of runs, with their counts of states."""
    console = Console(highlight=False)
    names = manifest.names(runs_dir)
    if not names:
        console.print(
            f"no study under {runs_dir} yet; start one: ablate train study=quick hydra/launcher=local"
        )
    for name in names:
        try:
            planned = manifest.load(runs_dir, name)
        except UserError as error:
            console.print(f"{name}: {error}", soft_wrap=True, markup=False)
            continue
        counts = Counter(states.state_of(RunFolder(runs_dir / run.signature)) for run in planned.runs)
        console.print(f"{name}: {_counted(counts)}")


def _view(runs_dir: Path, overview: Overview, most: int, width: int) -> Group:
    shown = overview.runs
    if len(shown) > most:
        shown = [s for s in shown if s.state not in (FINISHED, PENDING)][:most]
    parts: list[Table | Text] = [_table(runs_dir, overview, shown, width)] if shown else []
    if len(shown) < len(overview.runs):
        parts.append(Text(f"{len(overview.runs) - len(shown)} more; --all shows every run"))
    if overview.queue.silent:
        parts.append(Text(f"SLURM does not answer, so only the run folders speak: {overview.queue.silent}"))
    return Group(*parts, Text(_summary(overview)))


def _table(runs_dir: Path, overview: Overview, shown: list[Standing], width: int) -> Table:
    """One row per run, with as many figures of its speed as the width has room for."""
    folders = [RunFolder(runs_dir / standing.run.signature) for standing in shown]
    speeds: list[dict[str, Any]] = [next(reversed(folder.speed()), {}) for folder in folders]
    columns = [name for name in SPEED if any(name in speed for speed in speeds)]
    best = [_best(folder) for folder in folders]
    while True:
        table = _with_columns(columns, overview, shown, speeds, best)
        if not columns or Console(width=10_000).measure(table).maximum <= width:
            return table
        columns.pop()


def _with_columns(
    columns: list[str],
    overview: Overview,
    shown: list[Standing],
    speeds: list[dict[str, Any]],
    best: list[str],
) -> Table:
    factors = overview.manifest.factors
    table = Table(box=None, pad_edge=False, header_style="bold")
    titles = [SPEED[name][0] for name in columns]
    for title in (*factors, "seed", "state", "epoch", "left", "best top-1", *titles, "run", "note"):
        table.add_column(title, overflow="fold")
    for standing, speed, accuracy in zip(shown, speeds, best, strict=True):
        run, record = standing.run, standing.record
        table.add_row(
            *(escape(run.factors.get(factor, "")) for factor in factors),
            str(run.seed),
            f"[{STYLES.get(standing.state, 'default')}]{standing.state}[/]",
            f"{record.get('epoch') or 0}/{record.get('epochs') or '?'}",
            states.until(standing.ends) if standing.ends else "",
            accuracy,
            *(SPEED[name][1](speed[name]) if speed.get(name) is not None else "" for name in columns),
            run.signature,
            escape(standing.note),
        )
    return table


def _best(folder: RunFolder) -> str:
    """Best validation accuracy so far."""
    accuracies = [line["validation_top1"] for line in folder.metrics() if "validation_top1" in line]
    return f"{max(accuracies):.2f}" if accuracies else ""


def _summary(overview: Overview) -> str:
    ends = [standing.ends for standing in overview.runs if standing.ends is not None]
    latest = f"; those at work end in about {states.until(max(ends))}" if ends else ""
    return f"{overview.manifest.name}: {_counted(overview.counts)}{latest}"


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[state]} {state}" for state in ORDER if counts[state])
