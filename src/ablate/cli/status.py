"""`ablate status`: states of a study's runs, or the studies there are."""

from __future__ import annotations

import argparse
from pathlib import Path

from ablate.cli.parsing import add_study_verb

SECONDS = 10.0  # between two looks: each asks the cluster's controller


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    sub = add_study_verb(
        verbs,
        status,
        "states of a study's runs, from their folders and the cluster's queue; without STUDY, the studies",
        "ablate status quick --watch",
        studies="?",
    )
    sub.add_argument("-w", "--watch", action="store_true", help="until no run is active or in a job")
    sub.add_argument("--all", action="store_true", help="every run, also of a study of more than a hundred")


def status(arguments: argparse.Namespace) -> None:
    """Print the states of a study's runs, or the studies there are."""
    if arguments.study is None:
        _list(arguments.runs_dir)
    elif arguments.watch:
        watch(arguments.runs_dir, arguments.study)
    else:
        _show(arguments.runs_dir, arguments.study, everything=arguments.all)


def watch(runs_dir: Path, study: str) -> None:
    """Show a study until no run is active or in a job any more; Ctrl-C ends the display only.

    Raises:
        UserError: no such study.
    """
    import time

    from rich.console import Console
    from rich.live import Live

    from ablate.cli import status_table
    from ablate.studies import states

    overview, console, said = states.of_study(runs_dir, study), Console(highlight=False), ""
    if not console.is_terminal:
        while True:
            if (now := status_table.summary(overview)) != said:
                console.print(now, markup=False)
                said = now
            if not overview.active:
                return
            time.sleep(SECONDS)
            overview = states.of_study(runs_dir, study)
    rows = max(5, console.height - 6)
    view = status_table.view(runs_dir, overview, rows, console.width)
    with Live(view, console=console, auto_refresh=False) as live:
        while overview.active:
            time.sleep(SECONDS)
            overview = states.of_study(runs_dir, study)
            live.update(status_table.view(runs_dir, overview, rows, console.width), refresh=True)


def _show(runs_dir: Path, study: str, everything: bool) -> None:
    """Print a table of the study's runs and the command that runs again what did not end well."""
    from rich.console import Console

    from ablate.cli import status_table
    from ablate.commands import command
    from ablate.store import jobs
    from ablate.studies import states

    overview = states.of_study(runs_dir, study)
    console = Console(highlight=False)
    most = len(overview.runs) if everything else status_table.MOST
    console.print(status_table.view(runs_dir, overview, most, console.width))
    for path in jobs.damaged(runs_dir, study):
        said = f"{path} is damaged: which runs are in its jobs is not known"
        console.print(said, soft_wrap=True, markup=False)
    if again := overview.select(states.AGAIN):
        count = f"{len(again)} run{'s' * (len(again) != 1)}"
        retry = command("retry", study, runs_dir=runs_dir)
        console.print(f"to run {count} again: {retry}", soft_wrap=True, markup=False)
    if stale := sum(bool(standing.stale) for standing in overview.runs):
        anew = command("retry", study, "--stale", runs_dir=runs_dir)
        console.print(f"{_stale(stale)}: {anew}", soft_wrap=True, markup=False)


def _stale(count: int) -> str:
    runs = "run was" if count == 1 else "runs were"
    return f"{count} finished {runs} computed by other code than today's; to compute them anew"


def _list(runs_dir: Path) -> None:
    """Print the studies under a folder of runs, with their numbers of runs by state."""
    from rich.console import Console

    from ablate.cli import status_table
    from ablate.errors import UserError
    from ablate.studies.status import studies

    console = Console(highlight=False)
    found = False
    for name, counts in studies(runs_dir):
        found = True
        if isinstance(counts, UserError):
            console.print(f"{name}: {counts}", soft_wrap=True, markup=False)
        else:
            console.print(f"{name}: {status_table.counted(counts)}")
    if not found:
        console.print(
            f"no study under {runs_dir} yet; start one: ablate train study=quick hydra/launcher=local"
        )
