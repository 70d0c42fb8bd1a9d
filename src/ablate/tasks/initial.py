"""Weights that the host of a dense task begins with: `task.init`.

They come from a classification run (`run:SIGNATURE`, or `study:NAME` for the run of a study with this run's
operator, host and seed) or from a checkpoint file. A digest of them, `task.weights`, is part of a run's
identity; the place they are read from, `infra.weights`, is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ablate import hosts
from ablate.errors import UserError
from ablate.hosts.features import Features
from ablate.official import checkpoints, convert
from ablate.store import manifest
from ablate.store.folder import RunFolder, find
from ablate.store.identity import digest
from ablate.store.metrics import DEFAULT, task_of

RUN, STUDY, FILE = "run:", "study:", "file"
DIGITS = 16  # of a digest
ANEW = "put the file back, or request the run anew with task.init"


def resolve(config: dict[str, Any]) -> None:
    """Find what `task.init` names, and write its digest and place into the configuration.

    Raises:
        UserError: there is no such run, study or file, or it has no weights.
    """
    task, infra = config["task"], config["infra"]
    init = task.get("init")
    given = task.pop("weights", None)
    if init is None:
        if given is not None:
            raise UserError("task.weights without task.init", "give task.init, which determines it")
        return
    path, name = _find(str(init), config, Path(str(infra["runs_dir"])))
    state = _read(path)
    found = weights_digest(state)
    if given is not None and given != found:
        raise UserError(f"the weights at {path} have the digest {found}, not {given}", ANEW)
    task["init"], task["weights"], infra["weights"] = name, found, str(path.absolute())


def _find(init: str, config: Mapping[str, Any], runs_dir: Path) -> tuple[Path, str]:
    """Return the file with the weights, and `task.init` as the identity has it."""
    if init.startswith(RUN):
        folder = find(runs_dir, init.removeprefix(RUN))
        return _checkpoint(folder), f"{RUN}{folder.signature}"
    if init.startswith(STUDY):
        return _checkpoint(_partner(init.removeprefix(STUDY), config, runs_dir)), init
    path = Path(init).expanduser()
    if init == FILE:  # a configuration that was resolved before
        path = Path(str(config["infra"].get("weights") or ""))
    return path, FILE


def _partner(study: str, config: Mapping[str, Any], runs_dir: Path) -> RunFolder:
    """Return the run of a study with the operator, host and seed of a configuration."""
    wanted = _kinship(config)
    found = []
    for run in manifest.load(runs_dir, study).runs:
        folder = RunFolder(runs_dir / run.signature)
        if folder.path.is_dir() and _kinship(folder.config()) == wanted:
            found.append(folder)
    if len(found) != 1:
        raise UserError(
            f"study {study} has {len(found)} runs of op={config['op']['name']} in "
            f"host={config['host']['name']} with seed={config['seed']}",
            "train that one first" if not found else "name one of them: task.init=run:SIGNATURE",
        )
    return found[0]


def _kinship(config: Mapping[str, Any]) -> str:
    """Return a digest that two runs share if one may begin with the other's weights; rates may differ."""
    host = {key: value for key, value in config["host"].items() if not key.endswith("_rate")}
    return digest({"op": config["op"], "host": host, "seed": config["seed"]})


def _checkpoint(folder: RunFolder) -> Path:
    if task_of(folder.config()) != DEFAULT:
        raise UserError(f"run {folder.signature} is not of task={DEFAULT}", f"name a run of task={DEFAULT}")
    if folder.result() is None:
        raise UserError(f"run {folder.signature} has not finished", "let it finish first: `ablate status`")
    return folder.checkpoint_path


def _read(path: Path) -> dict[str, Tensor]:
    return checkpoints.weights(checkpoints.read(path))


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Return 16 hex digits of names, types, shapes and bytes of tensors, whatever their order."""
    whole = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        whole.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()[:DIGITS]


def load(features: Features, config: Mapping[str, Any], name: str, arguments: Mapping[str, Any]) -> None:
    """Put the weights of `task.init` into a host's features, if it names any.

    Raises:
        UserError: the file is not there, is not what it was, or does not fit.
    """
    if config["task"].get("weights") is None:
        return
    fitting = _fitting(features, config, name, arguments)
    if not any(parameter.is_meta for parameter in features.parameters()):  # else there is only a check
        features.model.load_state_dict(fitting)


def _fitting(
    features: Features, config: Mapping[str, Any], name: str, arguments: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Return the weights by the names of the host's features."""
    path = Path(str(config["infra"]["weights"]))
    state = _read(path)
    if (found := weights_digest(state)) != config["task"]["weights"]:
        raise UserError(
            f"the weights at {path} have the digest {found}, not {config['task']['weights']}", ANEW
        )
    expected = features.model.state_dict()
    if not expected.keys() <= state.keys():
        state = _converted(state, config, name, arguments)
    parts = {key.partition(".")[0] for key in expected}
    problems = {
        "missing": sorted(expected.keys() - state.keys()),
        "without a place": sorted(
            key for key in state.keys() - expected.keys() if key.partition(".")[0] in parts
        ),
        "of another shape": [
            f"{key} {tuple(state[key].shape)} instead of {tuple(value.shape)}"
            for key, value in expected.items()
            if key in state and state[key].shape != value.shape
        ],
    }
    if any(problems.values()):
        listed = (f"{problem}: {', '.join(keys)}" for problem, keys in problems.items() if keys)
        raise UserError(
            "\n  ".join([f"the weights at {path} do not fit {config['op']['name']} in {name}", *listed]),
            "use weights of the same operator, host, channels and window",
        )
    return {key: state[key] for key in expected}


def _converted(
    state: Mapping[str, Tensor], config: Mapping[str, Any], name: str, arguments: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Return weights under their authors' names by ours; the classifier is whatever the file has."""
    head = next((state[key] for key in checkpoints.HEADS if key in state), None)
    classes = {} if head is None else {"num_classes": head.shape[0]}
    with torch.device("meta"):
        whole = hosts.create(name, config["op"], **{**arguments, **classes})
    try:
        return convert(whole, state)
    except UserError as error:
        does_not_fit = f"weights of another network than {config['op']['name']} in {name}: {error.problem}"
        raise UserError(does_not_fit, error.way_out) from error
