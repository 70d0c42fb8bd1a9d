"""`ablate study remove`: take runs out of a study."""

from __future__ import annotations

import argparse

from ablate.cli.parsing import add_study_verb


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb `study` and its own verb."""
    of_study = verbs.add_parser("study", help="change which runs a study consists of").add_subparsers(
        title="verbs", metavar="VERB", required=True
    )
    sub = add_study_verb(
        of_study,
        remove,
        "take runs out of a study; their folders stay, `ablate clean --orphans` deletes them",
        "ablate study remove quick recipe.epochs=1",
    )
    sub.add_argument("levels", nargs="*", metavar="FACTOR=LEVEL", help="runs that have all of these levels")
    sub.add_argument("--run", action="append", default=[], metavar="RUN", help="this one; may be repeated")


def remove(arguments: argparse.Namespace) -> None:
    """Take runs out of a study, and print what is left."""
    from ablate.studies.remove import remove

    done = remove(arguments.runs_dir, arguments.study, arguments.levels, arguments.run)
    print(f"{arguments.study}: removed {done.removed} runs, {done.left} are left; their folders stay")
    for problem in done.problems:
        print(problem)
