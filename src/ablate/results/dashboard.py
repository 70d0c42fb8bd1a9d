"""A study in Weights & Biases: what its pages say of it, and a workspace over them.

W&B groups and averages, but pairs nothing: the paired difference of a run is computed here, by the same code
as the report's, and is in the summary of its W&B run.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ablate.errors import UserError
from ablate.results import curves, formats, tables
from ablate.results.comparisons import Findings
from ablate.results.conditions import UNSET, short_names
from ablate.store.metrics import find

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

DIFFERENCE = "paired_difference"  # of a run and the baseline's with the same seed


@dataclass(frozen=True)
class Shown:
    """Fields that a W&B run shows about its study."""

    config: dict[str, Any]
    summary: dict[str, float]


def shown(findings: Findings) -> dict[str, Shown]:
    """Return by signature: condition and levels for the config, the paired difference for the summary."""
    differences = {
        (comparison.condition, seed): difference
        for comparison in findings.comparisons
        for seed, difference in zip(comparison.seeds, comparison.differences, strict=True)
    }
    names = _keys(findings)
    conditions = dict(zip(findings.runs["signature"], findings.runs["condition"], strict=True))
    found = {}
    for run in findings.manifest.runs:
        condition = conditions[run.signature]
        levels = {
            name: run.factors.get(factor, UNSET)
            for name, factor in zip(names, findings.manifest.factors, strict=True)
        }
        difference = differences.get((condition, run.seed))
        found[run.signature] = Shown(
            {"condition": condition, "factors": levels},
            {} if difference is None else {DIFFERENCE: difference},
        )
    return found


def workspace(findings: Findings, entity: str, project: str) -> Workspace:
    """A workspace of the study's pages: grouped by its factors, paired differences first.

    Raises:
        UserError: wandb-workspaces is not installed.
    """
    try:
        from wandb_workspaces import workspaces
        from wandb_workspaces.reports import v2 as panels
    except ImportError as error:
        raise UserError(
            "a workspace needs the package wandb-workspaces, which is not installed",
            "pip install 'ablate[dashboard]'",
        ) from error
    manifest = findings.manifest
    validation = curves.column(findings.runs)
    name = formats.metric_name(validation)
    condition, metric = panels.Config("condition"), panels.SummaryMetric(findings.metric)
    by_condition = {"groupby": condition, "groupby_aggfunc": "mean"}
    factors = [f"factors.{name}" for name in _keys(findings)]

    def bars(title: str, of: Any, by: str) -> Any:
        return panels.BarPlot(
            title=title,
            metrics=[of],
            groupby=panels.Config(by),
            groupby_aggfunc="mean",
            groupby_rangefunc="stderr",
        )

    def lines(title: str, of: str) -> Any:
        return panels.LinePlot(title=title, x="epoch", y=[of], groupby_rangefunc="minmax", **by_condition)

    table = tables.study_table(findings).markdown()
    sections = {
        "Paired differences": [
            bars(
                f"{findings.metric} − {findings.baseline}, same seed",
                panels.SummaryMetric(DIFFERENCE),
                "condition",
            ),
            panels.MarkdownPanel(markdown=f"{manifest.question}\n\n{table}".strip()),
        ],
        "By factor": [bars(factor.removeprefix("factors."), metric, factor) for factor in factors],
        "Learning curves": [
            lines(name[:1].lower() + name[1:], validation),
            lines("training loss", "train_loss"),
        ],
        "Cost": [
            panels.ScatterPlot(
                title=f"{find(findings.metric).plainly} and operations",
                x=panels.SummaryMetric("macs"),
                y=metric,
                log_x=True,
            )
        ],
    }
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=manifest.name,
        sections=[
            workspaces.Section(name=name, panels=found, is_open=True)
            for name, found in sections.items()
            if found
        ],
        runset_settings=workspaces.RunsetSettings(
            filters=[
                workspaces.Metric("Group") == manifest.name,
                workspaces.Metric("JobType") == "train",
            ],
            groupby=[workspaces.Config(name) for name in factors or ["condition"]],
        ),
    )


def _keys(findings: Findings) -> list[str]:
    """Names of the factors in a page's configuration, where a dot would mean a level below."""
    return [name.replace(".", "_") for name in short_names(findings.manifest.factors)]


def specification(found: Workspace) -> str:
    """The workspace as W&B stores it, in JSON; panels, which get random names, are numbered."""
    spec: str = found._to_model().spec.model_dump_json(by_alias=True, exclude_none=True, indent=2)
    numbers = itertools.count(1)
    return re.sub(r'"__id__": "\w+"', lambda _: f'"__id__": "panel{next(numbers)}"', spec) + "\n"
