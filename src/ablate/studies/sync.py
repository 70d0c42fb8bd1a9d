"""A study's runs sent to Weights & Biases from their run folders.

The source are our own files: W&B's offline files do not outlive a process that is killed. Each run folder
records what was sent, so that it is sent once, and that later calls send only what is new. The study's
report, if there is one, is sent as an artifact.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

SENT = "wandb.json"  # in a run folder: its W&B project, and the digest of what was sent
BATCH = 16  # W&B runs that are open at a time: their uploads wait for the network together
UPLOAD_SECONDS = 120.0  # limit for finishing a W&B run


@dataclass(frozen=True)
class Synced:
    """Numbers of runs by what was done with them, and what became of the report."""

    sent: int
    before: int  # sent before, and unchanged since
    running: int
    damaged: int
    without_epoch: int
    report: str


def sync(
    runs_dir: Path,
    study: str,
    project: str | None = None,
    track: Callable[[Iterator[RunFolder], int], Iterable[RunFolder]] = lambda sent, count: sent,
) -> Synced:
    """Send the runs of a study that W&B has not got yet; runs that are being computed are left out.

    Args:
        runs_dir: folder of the runs.
        study: its name.
        project: of W&B; None for that of the runs' configuration, infra.wandb_project.
        track: yields the runs that were sent, of so many, and may show how many are done.

    Raises:
        UserError: no such study; W&B cannot be reached, or has no key. What was sent is recorded.
    """
    planned = manifest.load(runs_dir, study)
    folders = [RunFolder(runs_dir / run.signature) for run in planned.runs]
    begun = [folder for folder in folders if folder.metrics_path.exists()]
    running = [folder for folder in begun if living_holder(folder.path) is not None]
    damaged = [folder for folder in begun if folder not in running and folder.damages()]
    ready = [folder for folder in begun if folder not in running and folder not in damaged]
    shown = _shown(planned, runs_dir)
    new = [folder for folder in ready if read_json(folder.path / SENT) != _sent(folder, shown, project)]
    sent = (folder for batch in _batches(new) for folder in _send(batch, shown, project))
    for _ in track(sent, len(new)):
        pass
    return Synced(
        sent=len(new),
        before=len(ready) - len(new),
        running=len(running),
        damaged=len(damaged),
        without_epoch=len(folders) - len(begun),
        report=_report(planned, runs_dir, project),
    )


def _report(planned: Manifest, runs_dir: Path, project: str | None) -> str:
    """Send the study's report, if there is one, as an artifact of its own W&B run; return what was done."""
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
            run = wandb.init(
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
            run.log_artifact(artifact)
            run.finish()
        except Exception as error:  # whatever the client raises
            raise _refused(error) from error
    write_json(folder / SENT, sent)
    return "report sent"


def _batches(folders: Sequence[RunFolder]) -> Iterator[Sequence[RunFolder]]:
    for start in range(0, len(folders), BATCH):
        yield folders[start : start + BATCH]


def _shown(planned: Manifest, runs_dir: Path) -> dict[str, Shown]:
    """Figures of the study to show with each run, as far as it has results."""
    try:
        return dashboard.shown(analyse(planned, collect(runs_dir, planned.name)))
    except UserError:  # nothing to compare yet, or no baseline
        return {}


def _send(
    folders: Sequence[RunFolder], shown: Mapping[str, Shown], project: str | None
) -> Iterator[RunFolder]:
    """Yield each run once W&B has all of it."""
    runs: list[Any] = []
    failure: Exception | None = None
    with tempfile.TemporaryDirectory(prefix="ablate-sync-") as scratch, ThreadPoolExecutor(BATCH) as threads:
        sent = [_sent(folder, shown, project) for folder in folders]
        try:
            runs.extend(_logged(folder, shown.get(folder.signature), project, scratch) for folder in folders)
        except Exception as error:  # whatever the client raises; the runs that are open continue
            failure = error
        ends = [threads.submit(_finish, run, folder) for run, folder in zip(runs, folders, strict=False)]
        for folder, end, record in zip(folders, ends, sent, strict=False):  # all of them wait for the network
            if (problem := end.exception()) is None:
                write_json(folder.path / SENT, record)
                yield folder
            elif isinstance(problem, Exception):
                failure = failure or problem
    if failure is not None:
        raise _refused(failure) from failure


def _finish(run: Any, folder: RunFolder) -> None:
    run.finish(exit_code=0 if folder.state() == FINISHED else 1)


def _refused(error: Exception) -> UserError:
    return UserError(
        f"W&B did not take all of it: {tracking.first_line(error)}",
        "`wandb login` or WANDB_API_KEY for a key, WANDB_BASE_URL for a server of your own; "
        "the same command continues with what is left",
    )


def _logged(folder: RunFolder, shown: Shown | None, project: str | None, scratch: str) -> Any:
    """Open the W&B run of a run and log all epochs that it does not have yet."""
    run = tracking.open_run(
        folder.config(),
        folder,
        "online",
        dir=scratch,
        reinit="create_new",
        settings=tracking.quiet(UPLOAD_SECONDS, strict=True),
        **({"project": project} if project else {}),
    )
    for metrics in folder.metrics():
        if metrics["epoch"] >= run.step:
            run.log(metrics, step=metrics["epoch"])
    run.summary.update({**(folder.result() or {}), "state": folder.state()})
    if shown is not None:
        run.config.update(shown.config, allow_val_change=True)
        run.summary.update(shown.summary)
    return run


def _sent(folder: RunFolder, shown: Mapping[str, Shown], project: str | None) -> dict[str, str]:
    """Record of a W&B run: its project, and the digest of everything that was sent."""
    said = f"{folder.state()} {shown.get(folder.signature)}"
    digest = _digest([folder.metrics_path, folder.result_path, folder.config_path], said)
    return {"project": project or tracking.project_of(folder), "digest": digest}


def _digest(files: Sequence[Path], said: str = "") -> str:
    found = hashlib.sha256(said.encode())
    for path in files:
        with suppress(FileNotFoundError):
            found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()
