"""`ablate clean`: delete what a folder of runs does not need any more."""

from __future__ import annotations

import argparse

from ablate.cli.parsing import add_runs_dir, add_verb


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    sub = add_verb(
        verbs,
        clean,
        "show what a folder of runs does not need any more, and delete it with --yes",
        "ablate clean --yes",
    )
    add_runs_dir(sub)
    sub.add_argument("--checkpoints", action="store_true", help="also the weights of finished runs")
    sub.add_argument("--orphans", action="store_true", help="also the folders of runs that no study lists")
    sub.add_argument("--yes", action="store_true", help="delete; else only show")


def clean(arguments: argparse.Namespace) -> None:
    """Print what can be deleted, and delete it with --yes."""
    from ablate.studies.clean import find

    found = list(find(arguments.runs_dir, arguments.checkpoints, arguments.orphans))
    total = 0
    for waste in found:
        total += waste.size
        print(f"{waste.size / 1e6:9.1f} MB  {waste.path}  ({waste.reason})")
        if arguments.yes:
            waste.delete()
    if not found:
        print(f"{arguments.runs_dir}: nothing to clean")
    elif arguments.yes:
        print(f"deleted {len(found)}: {total / 1e6:.1f} MB")
    else:
        print(f"{len(found)}: {total / 1e6:.1f} MB; nothing was deleted, --yes does it")
