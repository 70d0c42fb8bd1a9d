"""`ablate cancel`: end a study's jobs and processes."""

from __future__ import annotations

import argparse

from ablate.cli.parsing import add_study_verb


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    add_study_verb(
        verbs, cancel, "end a study's jobs and processes; what is done stays", "ablate cancel quick"
    )


def cancel(arguments: argparse.Namespace) -> None:
    """End a study's jobs and processes, and print which."""
    from ablate.studies.cancel import cancel

    done = cancel(arguments.runs_dir, arguments.study)
    if done.silent:
        print(f"SLURM does not answer, so its jobs continue: {done.silent}")
    if done.jobs:
        print(f"{len(done.jobs)} jobs cancelled; their runs write a checkpoint first")
    for process in done.launchers:
        print(f"launcher {process} is stopping; its runs write a checkpoint first")
    for host in done.elsewhere:
        print(f"runs outside SLURM are running on {host}: cancel them there")
    if not done.jobs and not done.launchers and not done.elsewhere:
        print(f"{arguments.study}: nothing is running and nothing waits")
