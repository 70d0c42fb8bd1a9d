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
from ablate.errors import UserError
from ablate.runs import identity, recovery, together
from ablate.runs.claim import living_holder
from ablate.runs.infra import complete
from ablate.runs.infra import read as read_infra
from ablate.runs.slurm import queue
from ablate.runs.study import read as read_study
from ablate.store import damage, manifest
from ablate.store.files import write_json, write_text
from ablate.store.folder import FAILED, FINISHED, PENDING, RunFolder, dump
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
) -> Submission:
    """Check every run, then freeze its configuration and write the study's manifest.

    Nothing is written if any run is refused. A single run without a study's name needs no manifest.
    `announce` is called before the first run is pending; see `ablate.runs.serving`.

    Raises:
        UserError: the first combination that cannot exist, with its overrides.
    """
    first = requests[0].config
    runs_dir = Path(read_infra(first["infra"]).runs_dir).expanduser().resolve()
    _check_all(requests)
    planned = _manifest(requests, runs_dir, command)
    wanted = {identity.signature(request.config): request.config for request in requests}
    submission = Submission(runs_dir, planned, wanted)
    runs_dir.mkdir(parents=True, exist_ok=True)
    announce(runs_dir, wanted)
    in_jobs = queue.of_study(runs_dir, planned.name).live
    for signature, config in wanted.items():
        retry = config["infra"]["retry_failed"]
        _file(submission, signature, config, queued=signature in in_jobs, retry=retry)
    if len(wanted) > 1 or first["study"]["name"]:
        _save(planned, runs_dir, note)
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


def _save(planned: Manifest, runs_dir: Path, note: Callable[[str], object]) -> None:
    """Write the manifest; one of the same name that held other settings fixed is kept and noted."""
    if (kept_aside := manifest.set_aside_damaged(runs_dir, planned.name)) is not None:
        note(
            f"the manifest of study {planned.name} was damaged and is now {kept_aside}; the study consists "
            "of the runs of this command: submit its other commands again, which computes nothing twice"
        )
    earlier = manifest.find(runs_dir, planned.name)
    if earlier is not None and (earlier.fixed, earlier.factors) != (planned.fixed, planned.factors):
        kept = earlier.keep(runs_dir)
        note(
            f"study {planned.name} was asked for with other settings before: it now consists of these runs; "
            f"the earlier ones stay, listed in {kept.name}. study.name=… keeps two studies apart"
        )
    if planned != earlier:
        planned.save(runs_dir)


def _check_all(requests: Sequence[Request]) -> None:
    """Build nothing, but ask every part whether it could; configurations that differ in seed only once."""
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
            data.check(config["data"], recipe.augment, data_root=root, download=infra.download)
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
    factors = _factors(requests, study.factors or ())
    study.check_baseline(factors)
    study.check_paths()
    constant = {key: value for key, value in requests[0].overrides.items() if key not in (*factors, "seed")}
    fixed = identity.fixed_digest(requests[0].config, factors, constant)
    name = study.name or _anonymous(requests)
    runs = {run.signature: run for run in (_planned(request, factors) for request in requests)}
    earlier = manifest.find(runs_dir, name)
    if earlier is not None and earlier.fixed == fixed and earlier.factors == factors:
        # more seeds or levels of the same study: it takes all the commands to go on with it
        runs = {run.signature: run for run in earlier.runs} | runs
        command = "\n".join(dict.fromkeys([*earlier.command.splitlines(), command]))
    planned = Manifest(
        name=name,
        question=study.question or "",
        baseline={str(key): str(value) for key, value in (study.baseline or {}).items()},
        factors=factors,
        paths={str(path): [str(step) for step in steps] for path, steps in (study.paths or {}).items()},
        metric=study.metric,
        command=command,
        updated=_now(),
        fixed=fixed,
        runs=list(runs.values()),
    )
    if earlier is not None and replace(earlier, updated=planned.updated) == planned:
        return earlier  # asked for again: nothing was added
    return planned


def _factors(requests: Sequence[Request], declared: Sequence[str]) -> list[str]:
    """What the study varies: its declared factors, and any other override that differs between runs."""
    keys = dict.fromkeys(key for request in requests for key in request.overrides if key != "seed")
    varying = [key for key in keys if len({request.overrides.get(key) for request in requests}) > 1]
    return list(dict.fromkeys([*declared, *varying]))


def _planned(request: Request, factors: list[str]) -> PlannedRun:
    config = request.config
    levels = {factor: request.overrides.get(factor, _level(config, factor)) for factor in factors}
    return PlannedRun(identity.signature(config), identity.pair_key(config), config["seed"], levels)


def _level(config: Mapping[str, Any], factor: str) -> str:
    """The level of a factor that no override names: what the configuration says."""
    node: Any = config
    for part in factor.replace("/", ".").split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return str(node.get("name") if isinstance(node, Mapping) else node)


def _anonymous(requests: Sequence[Request]) -> str:
    """A name for a sweep that got none, the same for the same sweep."""
    signatures = sorted(identity.signature(request.config) for request in requests)
    return f"sweep-{hashlib.sha256(json.dumps(signatures).encode()).hexdigest()[:8]}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
