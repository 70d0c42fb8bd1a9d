"""`ablate sync`: a study's pages in Weights & Biases, made from the run folders.

From our own files and not from W&B's offline ones, which do not outlive a process that is killed. What was
sent is written down in each run folder, so that it is sent once, and only what is new when asked again. The
study's report, if there is one, goes with it as an artifact.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from ablate.commands import command
from ablate.errors import UserError
from ablate.execution import tracking
from ablate.execution.claim import living_holder
from ablate.results import dashboard
from ablate.results.collect import collect
from ablate.results.comparisons import analyse
from ablate.results.dashboard import Shown
from ablate.store import manifest
from ablate.store.files import read_json, write_json
from ablate.store.folder import FINISHED, RunFolder
from ablate.store.manifest import Manifest

SENT = "wandb.json"  # in a run folder: where its page is, and the digest of what it shows
BATCH = 16  # pages that are open at a time: their uploads wait for the network together
UPLOAD_SECONDS = 120.0  # that the end of a page may take


def sync(runs_dir: Path, study: str, project: str | None = None) -> None:
    """Send what W&B has not got yet of a study's runs; runs at work are left to themselves.

    Args:
        runs_dir: where the runs lie.
        study: its name.
        project: of W&B; None for that of the runs' configuration, infra.wandb_project.

    Raises:
        UserError: no such study; W&B cannot be reached, or has no key. What was sent is written down.
    """
    planned = manifest.load(runs_dir, study)
    folders = [RunFolder(runs_dir / run.signature) for run in planned.runs]
    begun = [folder for folder in folders if folder.metrics_path.exists()]
    at_work = [folder for folder in begun if living_holder(folder.path) is not None]
    damaged = [folder for folder in begun if folder not in at_work and folder.damages()]
    ready = [folder for folder in begun if folder not in at_work and folder not in damaged]
    shown = _shown(planned, runs_dir)
    new = [folder for folder in ready if read_json(folder.path / SENT) != _sent(folder, shown, project)]
    console = Console(stderr=True, highlight=False)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"sync {study}", total=len(new))
        for batch in _batches(new):
            for _ in _send(batch, shown, project):
                progress.advance(task)
    parts = [f"{len(new)} sent", f"{len(ready) - len(new)} sent before"]
    for word, count in (
        ("at work", len(at_work)),
        ("damaged", len(damaged)),
        ("without any epoch", len(folders) - len(begun)),
    ):
        if count:
            parts.append(f"{count} {word}")
    print(f"{study}: {', '.join(parts)}; {_report(planned, runs_dir, project)}")


def _report(planned: Manifest, runs_dir: Path, project: str | None) -> str:
    """The study's report, if there is one, as an artifact of a page of its own; says what became of it."""
    folder = manifest.study_dir(runs_dir, planned.name)
    files = sorted(path for path in (folder / "report").rglob("*") if path.is_file())
    if not files:
        return f"no report yet: {command('report', planned.name, runs_dir=runs_dir)}"
    project = project or tracking.project_of_study(runs_dir, planned)
    sent = {"project": project, "digest": _digest(files)}
    if read_json(folder / SENT) == sent:
        return "report sent before"
    wandb = tracking.client()
    name = f"report-{re.sub(r'[^A-Za-z0-9_.-]', '-', planned.name)}"
    with tempfile.TemporaryDirectory(prefix="ablate-sync-") as scratch:
        try:
            page = wandb.init(
                project=project,
                id=name,
                name=name,
                group=planned.name,
                job_type="report",
                notes=planned.question,
                dir=scratch,
                resume="allow",
                settings=tracking.quiet(UPLOAD_SECONDS, strict=True),
            )
            artifact = wandb.Artifact(name, "report", description=planned.question)
            artifact.add_dir(str(folder / "report"))
            page.log_artifact(artifact)
            page.finish()
        except Exception as error:  # whatever the client raises
            raise _refused(error) from error
    write_json(folder / SENT, sent)
    return "report sent"


def _batches(folders: Sequence[RunFolder]) -> Iterator[Sequence[RunFolder]]:
    for start in range(0, len(folders), BATCH):
        yield folders[start : start + BATCH]


def _shown(planned: Manifest, runs_dir: Path) -> dict[str, Shown]:
    """What the pages say of the study, as far as it has results."""
    try:
        return dashboard.shown(analyse(planned, collect(runs_dir, planned.name)))
    except UserError:  # nothing to compare yet, or no baseline
        return {}


def _send(
    folders: Sequence[RunFolder], shown: Mapping[str, Shown], project: str | None
) -> Iterator[RunFolder]:
    """Yields each run once W&B has all of it."""
    pages: list[Any] = []
    failure: Exception | None = None
    with tempfile.TemporaryDirectory(prefix="ablate-sync-") as scratch, ThreadPoolExecutor(BATCH) as threads:
        sent = [_sent(folder, shown, project) for folder in folders]
        try:
            pages.extend(_filled(folder, shown.get(folder.signature), project, scratch) for folder in folders)
        except Exception as error:  # whatever the client raises; those that are open go on
            failure = error
        ends = [threads.submit(_end, page, folder) for page, folder in zip(pages, folders, strict=False)]
        for folder, end, record in zip(folders, ends, sent, strict=False):  # all of them wait for the network
            if (problem := end.exception()) is None:
                write_json(folder.path / SENT, record)
                yield folder
            elif isinstance(problem, Exception):
                failure = failure or problem
    if failure is not None:
        raise _refused(failure) from failure


def _end(page: Any, folder: RunFolder) -> None:
    page.finish(exit_code=0 if folder.state() == FINISHED else 1)


def _refused(error: Exception) -> UserError:
    return UserError(
        f"W&B did not take all of it: {tracking.first_line(error)}",
        "`wandb login` or WANDB_API_KEY for a key, WANDB_BASE_URL for a server of your own; "
        "the same command goes on with what is left",
    )


def _filled(folder: RunFolder, shown: Shown | None, project: str | None, scratch: str) -> Any:
    """A run's page with all its epochs; those that it has already are not sent again."""
    page = tracking.page(
        folder.config(),
        folder,
        "online",
        dir=scratch,
        reinit="create_new",
        settings=tracking.quiet(UPLOAD_SECONDS, strict=True),
        **({"project": project} if project else {}),
    )
    for metrics in folder.metrics():
        if metrics["epoch"] >= page.step:
            page.log(metrics, step=metrics["epoch"])
    page.summary.update({**(folder.result() or {}), "state": folder.state()})
    if shown is not None:
        page.config.update(shown.config, allow_val_change=True)
        page.summary.update(shown.summary)
    return page


def _sent(folder: RunFolder, shown: Mapping[str, Shown], project: str | None) -> dict[str, str]:
    """What is written down of a page: its project, and the digest of all that it shows."""
    said = f"{folder.state()} {shown.get(folder.signature)}"
    digest = _digest([folder.metrics_path, folder.result_path, folder.config_path], said)
    return {"project": project or tracking.project_of(folder), "digest": digest}


def _digest(files: Sequence[Path], said: str = "") -> str:
    found = hashlib.sha256(said.encode())
    for path in files:
        with suppress(FileNotFoundError):
            found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()
