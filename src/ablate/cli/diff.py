"""`ablate diff`: the differences of two runs."""

from __future__ import annotations

import argparse

from ablate.cli.parsing import add_runs_dir, add_verb


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    sub = add_verb(
        verbs,
        diff,
        "the differences of two runs: configuration, code, versions and hardware",
        "ablate diff 3f2a 77ab",
    )
    for name in ("one", "other"):
        sub.add_argument(name, metavar="RUN", help="the beginning of a run's signature")
    add_runs_dir(sub)


def diff(arguments: argparse.Namespace) -> None:
    """Print the differences of two runs."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from ablate.studies.difference import difference

    found = difference(arguments.runs_dir, arguments.one, arguments.other)
    console = Console(highlight=False)
    parts = {
        "configuration": found.settings,
        "code and data": found.code,
        "environment": found.environment,
        "where and in which study": found.places,
    }
    for title, changes in parts.items():
        if changes is None:
            console.print("code: not known of a run that was computed before it was recorded")
            continue
        if not changes:
            console.print(f"{title}: the same")
            continue
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in (title, *found.signatures):
            table.add_column(heading, overflow="fold")
        for change in changes:
            table.add_row(*map(escape, change))
        console.print(table)
