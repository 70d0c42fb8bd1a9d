"""From configurations to run folders: check all, freeze all, say what is left to do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ablate import commands
from ablate.compose.infra import complete
from ablate.compose.infra import read as read_infra
from ablate.compose.study import read as read_study
from ablate.errors import UserError
from ablate.execution import process_group as together
from ablate.execution.claim import living_holder
from ablate.launch import growth, recovery
from ablate.launch.slurm import queue
from ablate.store import damage, identity, manifest
from ablate.store.files import write_json, write_text
from ablate.store.folder import FAILED, FINISHED, PENDING, RunFolder, dump
from ablate.store.locks import locked
from ablate.store.manifest import Manifest, PlannedRun

Announce = Callable[[Path, Iterable[str]], object]


@dataclass(frozen=True)
class Request:
    """One run that is asked for: its resolved configuration and the overrides that led to it."""

    config: dict[str, Any]
    overrides: dict[str, str]


@dataclass
class Submission:
    """A checked and frozen study."""

    runs_dir: Path
    manifest: Manifest
    configs: dict[str, dict[str, Any]]  # by signature
    ready: list[str] = field(default_factory=list)  # signatures to be run now
    finished: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    queued: list[str] = field(default_factory=list)  # in jobs of the cluster
    failed: list[str] = field(default_factory=list)  # before; retried only when asked

    def folder(self, signature: str) -> RunFolder:
        """The folder of one of its runs."""
        return RunFolder(self.runs_dir / signature)

    def title(self, signature: str) -> str:
        """A run in a few words: its factors and seed."""
        run = next(run for run in self.manifest.runs if run.signature == signature)
        config = self.configs[signature]
        levels = [f"{key.replace('/', '.').rsplit('.', 1)[-1]}={value}" for key, value in run.factors.items()]
        return f"{' '.join(levels) or config['op']['name']} seed={run.seed}"


def submit(
    requests: Sequence[Request],
    command: str,
    note: Callable[[str], object],
    announce: Announce = lambda runs_dir, signatures: None,
    *,
    portion: bool = False,
) -> Submission:
    """Check every run, then freeze its configuration and add it to the study's manifest.

    Nothing is written if any run is refused. A single run without a study's name needs no manifest.
    `announce` is called before the first run is pending; see `ablate.execution.serving`.

    Args:
        requests: the runs of one command.
        command: recorded in the manifest.
        note: prints what the user should know.
        portion: the command runs a part of the study; its baseline and conditions of a path may be missing.

    Raises:
        UserError: the first combination that cannot exist, with its overrides; a baseline that is none of the
            study's conditions.
    """
    first = requests[0].config
    runs_dir = Path(read_infra(first["infra"]).runs_dir).expanduser().resolve()
    check(requests)
    planned = _manifest(requests, runs_dir, command)
    _check_design(planned, note, portion or len({run.pair_key for run in planned.runs}) == 1)
    wanted = {identity.signature(request.config): request.config for request in requests}
    submission = Submission(runs_dir, planned, wanted)
    runs_dir.mkdir(parents=True, exist_ok=True)
    announce(runs_dir, wanted)
    in_jobs = queue.of_study(runs_dir, planned.name).live
    for signature, config in wanted.items():
        retry = config["infra"]["retry_failed"]
        _file(submission, signature, config, queued=signature in in_jobs, retry=retry)
    if len(wanted) > 1 or first["study"]["name"]:
        submission.manifest = _save(requests, runs_dir, command, note)
    return submission


def resubmit(
    runs_dir: Path,
    study: str,
    signatures: Collection[str],
    changes: Mapping[str, Any],
    note: Callable[[str], object],
    announce: Announce = lambda runs_dir, signatures: None,
) -> Submission:
    """Runs of a study once more, as they are frozen; `changes` are made to their `infra`.

    A run that cannot be submitted is noted and left out. What is damaged is computed again, finished or not.

    Raises:
        UserError: no such study, or no run that can be submitted.
    """
    planned = manifest.load(runs_dir, study)
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
    in_jobs = queue.of_study(runs_dir, study).live
    for signature, config in configs.items():
        _file(submission, signature, config, queued=signature in in_jobs, retry=True, thorough=True)
    return submission


def _refrozen(
    runs_dir: Path, planned: Manifest, run: PlannedRun, changes: Mapping[str, Any]
) -> dict[str, Any]:
    frozen = recovery.configuration(runs_dir, planned, run)
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


def _file(
    submission: Submission,
    signature: str,
    config: dict[str, Any],
    *,
    queued: bool,
    retry: bool,
    thorough: bool = False,
) -> None:
    """Freeze one run unless it is finished or at work, and note its state.

    `thorough` reads every byte of a finished run, which is not finished if it is damaged.
    """
    folder = submission.folder(signature)
    if folder.finished() and not (thorough and damage.find_changed(folder)):
        submission.finished.append(signature)
        return
    if folder.path.exists() and living_holder(folder.path) is not None:
        submission.running.append(signature)
        return
    if queued:
        submission.queued.append(signature)
        return
    if folder.state() == FAILED and not retry:
        submission.failed.append(signature)
        return
    folder.path.mkdir(exist_ok=True)
    write_text(folder.config_path, dump(config))
    if folder.status_is_new():
        record = {"state": PENDING, "attempt": 0, "created": _now(), "updated": _now(), "error": None}
        write_json(folder.status_path, {**record, "epoch": 0, "epochs": config["recipe"].get("epochs")})
    elif folder.state() in (FAILED, FINISHED):  # damaged; jobs leave alone what failed
        again = {"state": PENDING, "asked": _now(), "updated": _now(), "error": None}
        write_json(folder.status_path, {**folder.status(), **again})
    submission.ready.append(signature)


def _save(
    requests: Sequence[Request], runs_dir: Path, command: str, note: Callable[[str], object]
) -> Manifest:
    """Add the runs to the manifest as it is now: another command may have added some in the meantime."""
    name = _name(requests)
    folder = manifest.study_dir(runs_dir, name)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / manifest.LOCK):
        if (kept_aside := manifest.set_aside_damaged(runs_dir, name)) is not None:
            note(
                f"the manifest of study {name} was damaged and is now {kept_aside}; the study consists "
                "of the runs of this command: submit its other commands again, which computes nothing twice"
            )
        earlier = manifest.find(runs_dir, name)
        planned = _manifest(requests, runs_dir, command)
        if planned != earlier:
            planned.save(runs_dir)
    new = [factor for factor in planned.factors if earlier and factor not in earlier.factors]
    for factor in new:
        levels = list(dict.fromkeys(run.factors[factor] for run in planned.runs))
        remove = commands.command("study", "remove", name, f"{factor}={levels[0]}", runs_dir=runs_dir)
        note(
            f"study {name} grows: {factor} is one of its factors now ({', '.join(levels)}); "
            f"another study.name keeps two studies apart, and this leaves runs out:\n  → {remove}"
        )
    return planned


def _check_design(planned: Manifest, note: Callable[[str], object], portion: bool) -> None:
    """Refuse what the report would refuse after all runs; of a portion of a study, say it."""
    for error in growth.check(planned):
        if not portion:
            raise error
        note(f"{error.problem}: so far")


def check(requests: Sequence[Request]) -> None:
    """Build nothing, but ask every part whether it could; once for configurations that differ in seed only.

    Raises:
        UserError: the first combination that cannot exist, with its overrides.
    """
    from ablate import data, hosts
    from ablate.training import optimization
    from ablate.training.device import resolve_device
    from ablate.training.loop import host_arguments
    from ablate.training.recipe import read

    place = together.from_environment()
    checked: set[str] = set()
    for request in requests:
        config = request.config
        _check_seed(config["seed"])
        key = identity.pair_key(config)
        if key in checked:
            continue
        checked.add(key)
        try:
            infra = read_infra(config["infra"])
            resolve_device(infra.device)
            recipe = read(config["recipe"])
            recipe.check_share(place.world if place else infra.devices * infra.launcher["nodes"])
            optimization.check(recipe)
            root = Path(infra.data_root) if infra.data_root else None
            data.check(
                config["data"],
                recipe.augment,
                batch_size=recipe.batch_size,
                data_root=root,
                download=infra.download,
            )
            name, arguments = host_arguments(config)
            hosts.check(name, config["op"], **arguments)
        except UserError as error:
            if len(requests) == 1:
                raise
            where = " ".join(f"{name}={value}" for name, value in request.overrides.items())
            raise UserError(f"{error.problem}  [{where}]", error.way_out) from error


def _check_seed(seed: Any) -> None:
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise UserError(
            f"seed={seed!r} is not a whole number of 0 or more", "several seeds: seed=0,1,2 with -m"
        )


def _manifest(requests: Sequence[Request], runs_dir: Path, command: str) -> Manifest:
    study = read_study(requests[0].config["study"])
    study.check_paths()
    name = _name(requests)
    earlier = manifest.find(runs_dir, name)
    added = [
        growth.Member(
            identity.signature(request.config),
            identity.pair_key(request.config),
            request.config["seed"],
            request.overrides,
            source=request.config,
        )
        for request in requests
    ]
    planned = growth.grow(earlier, name, added, study, runs_dir)
    if earlier is not None:
        known = {run.signature for run in earlier.runs}
        if known.issuperset(member.signature for member in added):  # nothing is added
            command = earlier.command
        command = "\n".join(dict.fromkeys([*earlier.command.splitlines(), command]))
        if replace(planned, command=command, updated=earlier.updated) == earlier:
            return earlier
    return replace(planned, command=command, updated=_now())


def _name(requests: Sequence[Request]) -> str:
    return read_study(requests[0].config["study"]).name or _anonymous(requests)


def _anonymous(requests: Sequence[Request]) -> str:
    """A name for a sweep that got none, the same for the same sweep."""
    signatures = sorted(identity.signature(request.config) for request in requests)
    return f"sweep-{hashlib.sha256(json.dumps(signatures).encode()).hexdigest()[:8]}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
