"""The table of a study's runs, as `ablate status` prints it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ablate.results import formats
from ablate.results.conditions import short_names
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


def view(runs_dir: Path, overview: Overview, most: int, width: int | None) -> Group:
    """Build the table and the lines below it.

    Args:
        runs_dir: folder of the runs.
        overview: the study.
        most: rows of the table.
        width: columns of text; None: as wide as the table needs.
    """
    shown = overview.runs
    if len(shown) > most:
        shown = [s for s in shown if s.state not in (FINISHED, PENDING)][:most]
    parts: list[Table | Text] = _table(runs_dir, overview, shown, width) if shown else []
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


@dataclass(frozen=True)
class _Column:
    """One column of the table: its title and the text of each row, in rich's markup.

    Attributes:
        spare: columns are left out in this order where the table is too wide; 0: never.
    """

    title: str
    cells: list[str]
    spare: int = 0


NOTE, RUN = "note", "run"


def _table(
    runs_dir: Path, overview: Overview, shown: Sequence[Standing], width: int | None
) -> list[Table | Text]:
    """Build a table of one row per run that fits the width, and the notes below it that do not fit into it.

    Speed is left out first, then notes become lines below the table. What still does not fit is folded.
    """
    figures = [progress(RunFolder(runs_dir / standing.run.signature)) for standing in shown]
    columns = [column for column in _columns(overview, shown, figures) if any(column.cells)]
    while width is not None and _width(columns) > width:
        spare = [column for column in columns if column.spare]
        if not spare:
            break
        columns.remove(min(spare, key=lambda column: column.spare))
    table = _drawn(columns)
    if any(column.title == NOTE for column in columns):
        return [table]
    notes = [f"{standing.run.signature}: {standing.note}" for standing in shown if standing.note]
    return [table, *map(Text, notes)]


def _columns(overview: Overview, shown: Sequence[Standing], figures: Sequence[Progress]) -> list[_Column]:
    """List the columns in their order; factors by the shortest names that tell them apart."""
    factors = overview.manifest.factors
    columns = [
        _Column(name, [escape(standing.run.factors.get(factor, "")) for standing in shown])
        for factor, name in zip(factors, short_names(factors), strict=True)
    ]
    selecting = {done.metric for done in figures if done.metric is not None} or {
        of_metric(overview.manifest.metric).selecting
    }
    best = f"best {' or '.join(sorted(metric.words for metric in selecting))}"
    records = [standing.record for standing in shown]
    columns += [
        _Column("seed", [str(standing.run.seed) for standing in shown]),
        _Column("state", [_state(standing) for standing in shown]),
        _Column("epoch", [f"{record.get('epoch') or 0}/{record.get('epochs') or '?'}" for record in records]),
        _Column("left", [states.until(one.ends) if one.ends else "" for one in shown]),
        _Column(best, ["" if done.best is None else f"{done.best:.2f}" for done in figures]),
    ]
    columns += [
        _Column(title, [_figure(name, done) for done in figures], spare=len(SPEED) - place)
        for place, (name, (title, _)) in enumerate(SPEED.items())
    ]
    columns.append(_Column(RUN, [standing.run.signature for standing in shown]))
    columns.append(_Column(NOTE, [escape(standing.note) for standing in shown], spare=len(SPEED) + 1))
    return columns


def _drawn(columns: Sequence[_Column]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.title, overflow="fold", no_wrap=column.title == RUN)
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*cells)
    return table


def _width(columns: Sequence[_Column]) -> int:
    return Console(width=10_000).measure(_drawn(columns)).maximum


def _state(standing: Standing) -> str:
    style = "yellow" if standing.stale else STYLES.get(standing.state, "default")
    return f"[{style}]{standing.state}[/]"


def _figure(name: str, done: Progress) -> str:
    value = done.speed.get(name)
    return "" if value is None else SPEED[name][1](value)
