"""`ablate sync`: send a study's runs to Weights & Biases."""

from __future__ import annotations

import argparse

from ablate.cli.parsing import add_study_verb


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    sub = add_study_verb(
        verbs,
        sync,
        "send a study's runs to Weights & Biases, once each; only what is new the next time",
        "ablate sync quick --project my-project",
    )
    sub.add_argument("--project", help="of W&B (default: infra.wandb_project, as the runs have it)")


def sync(arguments: argparse.Namespace) -> None:
    """Send a study's runs to W&B, and print how many."""
    from rich.console import Console
    from rich.progress import Progress

    from ablate.studies.sync import sync

    study = arguments.study
    console = Console(stderr=True, highlight=False)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        done = sync(
            arguments.runs_dir,
            study,
            arguments.project,
            lambda sent, count: progress.track(sent, total=count, description=f"sync {study}"),
        )
    parts = [f"{done.sent} sent", f"{done.before} sent before"]
    for words, count in (
        ("running", done.running),
        ("damaged", done.damaged),
        ("without any epoch", done.without_epoch),
    ):
        if count:
            parts.append(f"{count} {words}")
    print(f"{study}: {', '.join(parts)}; {done.report}")
