"""`ablate verify`: find the damaged files of a study."""

from __future__ import annotations

import argparse
import sys

from ablate.cli.parsing import add_study_verb
from ablate.cli.progress import tracked


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    add_study_verb(
        verbs,
        verify,
        "read every byte of a study's runs, and name the files that are damaged (exit code 1)",
        "ablate verify quick",
    )


def verify(arguments: argparse.Namespace) -> None:
    """Print the damaged files of a study and a summary; exit with 1 if there are any."""
    from ablate.commands import command
    from ablate.studies.verify import verify

    runs_dir, study = arguments.runs_dir, arguments.study
    with tracked(f"verify {study}") as track:
        found = verify(runs_dir, study, track)
    for damage in found.damages:
        print(f"{damage.path}: {damage.reason}")
    parts = [f"{found.compared} runs compared with their digests"]
    if found.without:
        parts.append(f"{found.without} without digests, read only")
    if found.unfinished:
        parts.append(f"{found.unfinished} not finished")
    print(f"{study}: {', '.join(parts)}; {found.damaged or 'none'} damaged")
    if found.damaged:
        again = command("retry", study, "--damaged", runs_dir=runs_dir)
        print(f"to compute what is damaged again: {again}")
        sys.exit(1)
