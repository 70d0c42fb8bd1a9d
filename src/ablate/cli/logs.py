"""`ablate logs`: what a run printed."""

from __future__ import annotations

import argparse
import sys

from ablate.cli.parsing import add_runs_dir, add_verb, positive


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    sub = add_verb(
        verbs, logs, "what a run printed, and its traceback if it failed", "ablate logs 3f2a --follow"
    )
    sub.add_argument("run", metavar="RUN", help="the beginning of a run's signature")
    add_runs_dir(sub)
    sub.add_argument("-f", "--follow", action="store_true", help="continue until the run has ended")
    sub.add_argument("-n", "--lines", type=positive, help="the last ones only")


def logs(arguments: argparse.Namespace) -> None:
    """Print what a run printed, and on stderr the output files of its jobs."""
    from ablate.store.folder import find
    from ablate.studies import logs

    folder = find(arguments.runs_dir, arguments.run)
    for path in logs.of_jobs(arguments.runs_dir, folder.signature):
        print(f"job: {path}", file=sys.stderr)
    for text in logs.read(folder, arguments.follow, arguments.lines):
        sys.stdout.write(text)
        sys.stdout.flush()
