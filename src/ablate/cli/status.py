"""`ablate status`: states of a study's runs, or the studies there are."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ablate.cli.parsing import add_study_verb
from ablate.errors import UserError

WHOLE = 10_000  # columns of text where nothing has to fit a screen
MOST_SINGLES = 20  # runs that no study lists, in a list of the studies
SECONDS = 10.0  # between two looks: each asks the cluster's controller


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    sub = add_study_verb(
        verbs,
        status,
        "states of a study's runs, from their folders and the cluster's queue; without STUDY, the studies "
        "and single runs that there are. A signature is the name of a single run",
        "ablate status quick --watch",
        studies="?",
    )
    sub.add_argument("-w", "--watch", action="store_true", help="until no run is active or in a job")
    sub.add_argument(
        "--all", action="store_true", help="every run, also of a study of more than a hundred; so in a pipe"
    )
    sub.add_argument("--json", action="store_true", help="print it as JSON, for programs")


def status(arguments: argparse.Namespace) -> None:
    """Print the states of a study's runs, or the studies and single runs that there are."""
    runs_dir, study = arguments.runs_dir, arguments.study
    if arguments.json and arguments.watch:
        raise UserError("--json with --watch", "leave one of them out: --json prints one state")
    if arguments.json:
        _print_json(runs_dir, study)
    elif study is None:
        _list(runs_dir)
    elif arguments.watch:
        watch(runs_dir, study)
    else:
        _show(runs_dir, study, everything=arguments.all)


def _print_json(runs_dir: Path, study: str | None) -> None:
    import json

    from ablate.studies import states
    from ablate.studies.status import described, singles, studies

    if study is not None:
        found: object = described(runs_dir, states.of_study(runs_dir, study))
    else:
        known = dict(studies(runs_dir))
        found = {
            "runs_dir": str(runs_dir.absolute()),
            "studies": {name: None if isinstance(one, UserError) else one for name, one in known.items()},
            "damaged": {name: str(one) for name, one in known.items() if isinstance(one, UserError)},
            "single_runs": {
                one.run.signature: {**one.run.factors, "seed": one.run.seed, "state": one.state}
                for one in singles(runs_dir)
            },
        }
    print(json.dumps(found, indent=2, ensure_ascii=False))


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
    if not console.is_terminal and "COLUMNS" not in os.environ:  # into a pipe or a file: nothing is folded
        console, everything = Console(highlight=False, width=WHOLE), True
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
    """Print the studies under a folder of runs, with their numbers of runs by state, and the single runs."""
    from rich.console import Console

    from ablate.cli import status_table
    from ablate.commands import command
    from ablate.studies.status import singles, studies

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False)

    console = Console(highlight=False)
    known = dict(studies(runs_dir))
    for name, counts in known.items():
        say(f"{name}: {counts if isinstance(counts, UserError) else status_table.counted(counts)}")
    if any(isinstance(counts, UserError) for counts in known.values()):
        return  # which runs are in no study is not known
    alone = singles(runs_dir)
    for one in alone[:MOST_SINGLES]:
        operator, seed = one.run.factors["op"], one.run.seed
        say(f"{one.run.signature}: one run, op={operator} seed={seed}: {one.state}")
    if len(alone) > MOST_SINGLES:
        say(f"{len(alone) - MOST_SINGLES} more single runs: {command('status', '--json', runs_dir=runs_dir)}")
    if not known and not alone:
        say(f"no study under {runs_dir} yet; start one: ablate train study=quick hydra/launcher=local")
