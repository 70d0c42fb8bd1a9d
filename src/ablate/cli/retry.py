"""`ablate retry`: compute again what did not end well."""

from __future__ import annotations

import argparse
import sys

from ablate.cli.parsing import add_study_verb

STATES = ("failed", "lost", "damaged", "interrupted", "stale")  # each an option
EXPLAINED = {"stale": ": finished, but computed by other code than today's; results are kept in attempts/N"}


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    sub = add_study_verb(
        verbs,
        retry,
        "run again what failed, was lost, damaged or interrupted (default: all of these), or is stale",
        "ablate retry quick --failed infra.launcher.memory=32G",
    )
    for state in STATES:
        sub.add_argument(
            f"--{state}", action="store_true", help=f"those that are {state}{EXPLAINED.get(state, '')}"
        )
    sub.add_argument(
        "--run",
        action="append",
        default=[],
        metavar="RUN",
        help="this one, also if it has finished; may be repeated",
    )
    sub.add_argument(
        "--launcher",
        choices=("inline", "local", "slurm"),
        help="default: slurm if it was used before, else local",
    )
    sub.add_argument(
        "overrides", nargs="*", metavar="infra.KEY=VALUE", help="where runs are computed from now on"
    )


def retry(arguments: argparse.Namespace) -> None:
    """Run again what did not end well; the exit code is that of the runs."""
    from rich.console import Console

    from ablate.cli.launchers import LAUNCHERS
    from ablate.commands import command
    from ablate.studies import retry
    from ablate.studies.states import AGAIN

    runs_dir, study = arguments.runs_dir, arguments.study
    which = [state for state in STATES if getattr(arguments, state)]
    chosen = retry.select(runs_dir, study, which, arguments.run)
    if not chosen.again:
        kinds = " or ".join(which or AGAIN)
        print(f"{study}: no run is {kinds}; `{command('status', study, runs_dir=runs_dir)}` shows them")
        return
    launcher = arguments.launcher or retry.last_launcher(runs_dir, study)
    changes = retry.read_changes(arguments.overrides)
    note = Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print
    if code := retry.retry(runs_dir, study, chosen, changes, LAUNCHERS[launcher], note):
        sys.exit(code)
