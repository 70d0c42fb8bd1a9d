"""The table of a study's runs, as `ablate status` prints it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ablate.results import formats
from ablate.store.folder import DAMAGED, FAILED, FINISHED, INTERRUPTED, PENDING, PRUNED, RUNNING, RunFolder
from ablate.store.metrics import of_metric
from ablate.studies import states
from ablate.studies.states import LOST, MISSING, Overview, Standing
from ablate.studies.status import Progress, progress

STYLES = {
    FINISHED: "green",
    RUNNING: "cyan",
    FAILED: "red",
    INTERRUPTED: "yellow",
    LOST: "red",
    DAMAGED: "red",
}
ORDER = (FINISHED, RUNNING, PENDING, PRUNED, INTERRUPTED, FAILED, LOST, DAMAGED, MISSING)
# Figures of speed, shown where a run has them: title of the column and its format.
SPEED: dict[str, tuple[str, Callable[[float], str]]] = {
    "images_per_second": ("images/s", lambda value: formats.plain(value, 0)),
    "data_wait": ("data wait", formats.share),
    "peak_memory_bytes": ("memory", formats.memory),
    "mfu": ("MFU", formats.share),
}
MOST = 100  # rows of a table; of a larger study, the active runs and those that went wrong


def view(runs_dir: Path, overview: Overview, most: int, width: int) -> Group:
    """Build the table and the lines below it, with at most `most` rows in `width` columns of text."""
    shown = overview.runs
    if len(shown) > most:
        shown = [s for s in shown if s.state not in (FINISHED, PENDING)][:most]
    parts: list[Table | Text] = [_table(runs_dir, overview, shown, width)] if shown else []
    if len(shown) < len(overview.runs):
        parts.append(Text(f"{len(overview.runs) - len(shown)} more; --all shows every run"))
    if overview.queue.silent:
        reason = overview.queue.silent
        parts.append(Text(f"SLURM does not answer, so the states are those of the run folders: {reason}"))
    return Group(*parts, Text(summary(overview)))


def summary(overview: Overview) -> str:
    """Describe a study in one line: its runs by state, and when the last active one will end."""
    ends = [standing.ends for standing in overview.runs if standing.ends is not None]
    latest = f"; the running ones end in about {states.until(max(ends))}" if ends else ""
    stale = sum(bool(standing.stale) for standing in overview.runs)
    dated = f" ({stale} of them stale)" if stale else ""
    return f"{overview.manifest.name}: {counted(overview.counts, dated)}{latest}"


def counted(counts: Counter[str], of_finished: str = "") -> str:
    """List numbers of runs by state, with more words about those that have finished."""
    return ", ".join(
        f"{counts[state]} {state}{of_finished if state == FINISHED else ''}"
        for state in ORDER
        if counts[state]
    )


def _table(runs_dir: Path, overview: Overview, shown: Sequence[Standing], width: int) -> Table:
    """Build a table of one row per run, with as many columns of speed as fit into the width."""
    figures = [progress(RunFolder(runs_dir / standing.run.signature)) for standing in shown]
    columns = [name for name in SPEED if any(name in one.speed for one in figures)]
    while True:
        table = _with_columns(columns, overview, shown, figures)
        if not columns or Console(width=10_000).measure(table).maximum <= width:
            return table
        columns.pop()


def _with_columns(
    columns: Sequence[str], overview: Overview, shown: Sequence[Standing], figures: Sequence[Progress]
) -> Table:
    factors = overview.manifest.factors
    table = Table(box=None, pad_edge=False, header_style="bold")
    titles = [SPEED[name][0] for name in columns]
    selecting = {done.metric for done in figures if done.metric is not None} or {
        of_metric(overview.manifest.metric).selecting
    }
    best = f"best {' or '.join(sorted(metric.words for metric in selecting))}"
    for title in (*factors, "seed", "state", "epoch", "left", best, *titles, "run", "note"):
        table.add_column(title, overflow="fold")
    for standing, done in zip(shown, figures, strict=True):
        run, record = standing.run, standing.record
        table.add_row(
            *(escape(run.factors.get(factor, "")) for factor in factors),
            str(run.seed),
            _state(standing),
            f"{record.get('epoch') or 0}/{record.get('epochs') or '?'}",
            states.until(standing.ends) if standing.ends else "",
            "" if done.best is None else f"{done.best:.2f}",
            *(_figure(name, done) for name in columns),
            run.signature,
            escape(standing.note),
        )
    return table


def _state(standing: Standing) -> str:
    style = "yellow" if standing.stale else STYLES.get(standing.state, "default")
    return f"[{style}]{standing.state}[/]"


def _figure(name: str, done: Progress) -> str:
    value = done.speed.get(name)
    return "" if value is None else SPEED[name][1](value)
