"""A workspace over a study's runs in Weights & Biases, or its specification."""

from __future__ import annotations

from pathlib import Path

from ablate.commands import command
from ablate.errors import UserError
from ablate.execution import tracking
from ablate.results import dashboard as workspaces
from ablate.results.collect import collect
from ablate.results.comparisons import analyse
from ablate.store import manifest
from ablate.store.files import write_text

SPECIFICATION = "workspace.json"  # in the study's folder


def dashboard(
    runs_dir: Path, study: str, entity: str | None = None, project: str | None = None, offline: bool = False
) -> str:
    """Make a workspace in W&B and return its URL; offline, write its specification and return the path.

    Args:
        runs_dir: folder of the runs.
        study: its name.
        entity: W&B's user or team; None for the key's own.
        project: None for that of the runs' configuration, infra.wandb_project.
        offline: without W&B.

    Raises:
        UserError: no such study; wandb-workspaces is not installed; W&B cannot be reached.
    """
    planned = manifest.load(runs_dir, study)
    findings = analyse(planned, collect(runs_dir, study))
    project = project or tracking.project_of_study(runs_dir, planned)
    if offline:
        path = manifest.study_dir(runs_dir, study) / SPECIFICATION
        made = workspaces.workspace(findings, entity or "entity", project)
        write_text(path, workspaces.specification(made))
        return str(path)
    workspaces.workspace(findings, entity or "entity", project)  # fails early: needs no W&B
    try:
        entity = entity or tracking.client().Api(timeout=tracking.INIT_SECONDS).default_entity
        made = workspaces.workspace(findings, str(entity), project).save()
    except Exception as error:  # whatever the client raises
        sync = command("sync", study, runs_dir=runs_dir)
        raise UserError(
            f"W&B did not take the workspace: {tracking.first_line(error)}",
            f"`wandb login` or WANDB_API_KEY for a key; `{sync}` makes the project; --offline "
            "writes the specification without W&B",
        ) from error
    return str(made.url)
