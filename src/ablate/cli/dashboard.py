"""`ablate dashboard`: a workspace over a study's runs in Weights & Biases."""

from __future__ import annotations

import argparse

from ablate.cli.parsing import add_study_verb


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    sub = add_study_verb(
        verbs,
        dashboard,
        "a workspace in Weights & Biases: a study's factors as grouping, its paired differences as panels",
        "ablate dashboard quick --offline",
    )
    sub.add_argument("--entity", help="user or team of W&B (default: the key's own)")
    sub.add_argument("--project", help="of W&B (default: infra.wandb_project, as the runs have it)")
    sub.add_argument("--offline", action="store_true", help="write its specification into the study's folder")


def dashboard(arguments: argparse.Namespace) -> None:
    """Make the workspace, and print its URL or the path of its specification."""
    from ablate.studies.dashboard import dashboard

    print(
        dashboard(arguments.runs_dir, arguments.study, arguments.entity, arguments.project, arguments.offline)
    )
