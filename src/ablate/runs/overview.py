"""`ablate status`: where every run of a study stands, read from the run folders."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ablate.runs.claim import living_holder
from ablate.store import manifest
from ablate.store.folder import RUNNING, RunFolder

STYLES = {"finished": "green", "running": "cyan", "failed": "red", "interrupted": "yellow", "lost": "red"}
LOST = "lost"  # says `running`, but its process is gone


def show(runs_dir: Path, study: str) -> None:
    """Print a table of the study's runs and the command that goes on.

    Raises:
        UserError: no such study.
    """
    planned = manifest.load(runs_dir, study)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in (*planned.factors, "seed", "state", "epoch", "best top-1", "run", "note"):
        table.add_column(title, overflow="fold")
    counts: Counter[str] = Counter()
    for run in planned.runs:
        folder = RunFolder(runs_dir / run.signature)
        record, state = folder.status(), state_of(folder)
        counts[state] += 1
        accuracies = [line["validation_top1"] for line in folder.metrics() if "validation_top1" in line]
        table.add_row(
            *(escape(run.factors.get(factor, "")) for factor in planned.factors),
            str(run.seed),
            f"[{STYLES.get(state, 'default')}]{state}[/]",
            f"{record.get('epoch') or 0}/{record.get('epochs') or '?'}",
            f"{max(accuracies):.2f}" if accuracies else "",
            run.signature,
            escape(str(record.get("error") or "")),
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(f"{planned.name}: " + ", ".join(f"{count} {state}" for state, count in counts.items()))
    if counts.keys() - {"finished", RUNNING}:
        retry = " infra.retry_failed=true" if "failed" in counts else ""
        for command in planned.command.splitlines():
            suffix = "" if "infra.retry_failed" in command else retry
            console.print(f"to go on: {escape(command)}{suffix}", soft_wrap=True)


def list_studies(runs_dir: Path) -> None:
    """Print the studies under a folder of runs, with their counts of states."""
    console = Console(highlight=False)
    names = manifest.names(runs_dir)
    if not names:
        console.print(
            f"no study under {runs_dir} yet; start one: ablate train study=quick hydra/launcher=local"
        )
    for name in names:
        planned = manifest.load(runs_dir, name)
        counts = Counter(state_of(RunFolder(runs_dir / run.signature)) for run in planned.runs)
        console.print(f"{name}: " + ", ".join(f"{count} {state}" for state, count in counts.items()))


def state_of(folder: RunFolder) -> str:
    """The recorded state; `lost` where a run says `running` and no living process holds its claim."""
    state = folder.state()
    return LOST if state == RUNNING and living_holder(folder.path) is None else state
