"""Submit frozen runs of a study once more; a damaged configuration is rebuilt from another seed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ablate import commands
from ablate.compose.infra import complete
from ablate.compose.infra import read as read_infra
from ablate.errors import UserError
from ablate.launch.freezing import freeze
from ablate.launch.plan import Note
from ablate.launch.slurm import queue
from ablate.launch.submission import Submission
from ablate.launch.submit import Announce
from ablate.store.damage import DamagedError
from ablate.store.folder import RunFolder
from ablate.store.identity import signature
from ablate.store.manifest import Manifest, PlannedRun


def resubmit(
    planned: Manifest,
    runs_dir: Path,
    signatures: Collection[str],
    changes: Mapping[str, Any],
    note: Note,
    announce: Announce = lambda runs_dir, signatures: None,
    anew: Collection[str] = (),
) -> Submission:
    """Freeze runs of a study once more, with `changes` made to their `infra`.

    A run that cannot be submitted is noted and left out. A damaged run is computed again, finished or not. Of
    the others that have finished, those in `anew` are: their result is kept in attempts/N of their folder.

    Raises:
        UserError: no run can be submitted.
    """
    configs: dict[str, dict[str, Any]] = {}
    errors: list[UserError] = []
    for run in planned.runs:
        if run.signature not in signatures:
            continue
        try:
            configs[run.signature] = _refrozen(runs_dir, planned, run, changes)
        except UserError as error:
            errors.append(error)
    if not configs:
        raise errors[0]
    for left_out in errors:
        note(f"left out: {left_out}")
    submission = Submission(runs_dir, planned, configs)
    announce(runs_dir, configs)
    in_jobs = queue.of_study(runs_dir, planned.name).live
    for name, config in configs.items():
        folder = submission.folder(name)
        queued, again = name in in_jobs, name in anew
        state = freeze(folder, config, queued=queued, retry=True, thorough=True, anew=again)
        submission.add(name, state)
    return submission


def _refrozen(
    runs_dir: Path, planned: Manifest, run: PlannedRun, changes: Mapping[str, Any]
) -> dict[str, Any]:
    frozen = _frozen(runs_dir, planned, run)
    if frozen is None:
        raise UserError(
            f"run {run.signature} has no usable {RunFolder(runs_dir / run.signature).config_path}",
            f"submit the study again: {commands.train_again(planned.command, runs_dir)}",
        )
    config = complete(frozen)
    for key, value in changes.items():
        _set(config, key, value)
    read_infra(config["infra"])
    return config


def _set(config: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    node: Any = config
    for part in path:
        node = node.get(part) if isinstance(node, dict) else None
    if path[:1] != ["infra"] or not isinstance(node, dict) or last not in node:
        raise UserError(f"{key} is not a setting of infra", "a retry changes where runs are computed only")
    node[last] = value


def _frozen(runs_dir: Path, planned: Manifest, run: PlannedRun) -> dict[str, Any] | None:
    """Return a run's configuration, or None where it is damaged and no other run has its settings.

    A rebuilt configuration is exact: its signature is the name of the run's folder. Settings of `infra` are
    those of the other run.
    """
    if found := _read(runs_dir / run.signature):
        return found
    for other in planned.runs:
        if other.pair_key == run.pair_key and other.signature != run.signature:
            candidate = {**_read(runs_dir / other.signature), "seed": run.seed}
            if signature(candidate) == run.signature:
                return candidate
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        return RunFolder(path).config()
    except DamagedError:
        return {}
