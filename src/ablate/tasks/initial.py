"""Weights that the host of a dense task begins with: `task.init`.

They come from a classification run (`run:SIGNATURE`, or `study:NAME` for the run of a study with this run's
operator, host and seed), from timm (`timm:NAME.TAG`) or from a checkpoint file, which becomes `file:DIGEST`;
of a whole detector or segmenter the host's weights are taken. A digest of them, `task.weights`, is part of a
run's identity; the place they are read from, `infra.weights`, is not. A run that has a checkpoint of its own
needs them no more. Positions of another map or window are interpolated, as timm does.
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
from ablate.models.resizing import resize_positions
from ablate.official import checkpoints, convert, dense, pretrained
from ablate.store import manifest
from ablate.store.folder import RunFolder, find
from ablate.store.identity import digest
from ablate.store.metrics import DEFAULT, task_of

RUN, STUDY, FILE, TIMM = "run:", "study:", "file:", pretrained.PREFIX
DIGITS = 16  # of a digest
# ends of the names of host settings that may differ
FREE = ("_rate", "shift_order", "deformable", "last_stride", "pretrained", "pretrained_digest")
OFFSETS = ".conv_offset."  # of deformable convolutions: they begin at zero where a file has none
FITTING = "use weights of the same operator, host and channels"
KEY = "task.init"


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
    if not isinstance(init, str) or not init:
        raise UserError(
            f"task.init={init!r}", "give study:NAME, run:SIGNATURE, timm:NAME.TAG or the path of a checkpoint"
        )
    task["init"], task["weights"], infra["weights"] = locate(init, given, config, KEY)


def locate(init: str, given: str | None, config: Mapping[str, Any], key: str) -> tuple[str, str, str]:
    """Return the name that the identity has of weights, their digest, and the place to read them from.

    Args:
        init: what a setting names: `study:NAME`, `run:SIGNATURE`, `timm:NAME.TAG` or a path.
        given: digest that the configuration has already; None if it has none.
        config: of the run.
        key: the setting, for messages.

    Raises:
        UserError: there are no such weights, or they have another digest.
    """
    place, name = _find(init, config, Path(str(config["infra"]["runs_dir"])))
    found = weights_digest(_read(place))
    if name == FILE:  # every file is a condition of its own; a run that is requested again has its digest
        name += found
        if init.startswith(FILE) and init != name:
            raise _changed(place, found, init.removeprefix(FILE), key)
    if given is not None and given != found:
        raise _changed(place, found, given, key)
    return name, found, place


def read_verified(place: str, digest: str, key: str) -> dict[str, Tensor]:
    """Return the weights at a place.

    Raises:
        UserError: they are not there, or have another digest.
    """
    state = _read(place)
    if (found := weights_digest(state)) != digest:
        raise _changed(place, found, digest, key)
    return state


def _changed(place: str, found: str, expected: str, key: str) -> UserError:
    return UserError(
        f"the weights at {place} have the digest {found}, not {expected}",
        f"put the file back, or request the run anew with {key}",
    )


def _find(init: str, config: Mapping[str, Any], runs_dir: Path) -> tuple[str, str]:
    """Return the place of the weights, and `task.init` as the identity has it."""
    if init.startswith(TIMM):
        return init, init
    path, name = _find_file(init, config, runs_dir)
    return str(path.absolute()), name


def _find_file(init: str, config: Mapping[str, Any], runs_dir: Path) -> tuple[Path, str]:
    if init.startswith(RUN):
        folder = find(runs_dir, init.removeprefix(RUN))
        return _checkpoint(folder), f"{RUN}{folder.signature}"
    if init.startswith(STUDY):
        return _checkpoint(_partner(init.removeprefix(STUDY), config, runs_dir)), init
    if init.startswith(FILE):  # a configuration that was resolved before
        return Path(str(config["infra"].get("weights") or "")), FILE
    return Path(init).expanduser(), FILE


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
            "train that one first" if not found else "name one of them: run:SIGNATURE",
        )
    return found[0]


def _kinship(config: Mapping[str, Any]) -> str:
    """Return a digest that two runs share if one may begin with the other's weights.

    Settings that change no weight of the other one may differ.
    """
    host = {key: value for key, value in config["host"].items() if not key.endswith(FREE)}
    return digest({"op": config["op"], "host": host, "seed": config["seed"]})


def _checkpoint(folder: RunFolder) -> Path:
    if task_of(folder.config()) != DEFAULT:
        raise UserError(f"run {folder.signature} is not of task={DEFAULT}", f"name a run of task={DEFAULT}")
    if folder.result() is None:
        raise UserError(f"run {folder.signature} has not finished", "let it finish first: `ablate status`")
    return folder.checkpoint_path


def _read(place: str | Path) -> dict[str, Tensor]:
    """Return timm's weights by `timm:NAME.TAG`, others from a file."""
    if str(place).startswith(TIMM):
        return pretrained.weights(str(place).removeprefix(TIMM))
    return checkpoints.weights(checkpoints.read(Path(place)))


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Return 16 hex digits of names, types, shapes and bytes of tensors, whatever their order."""
    whole = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        whole.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()[:DIGITS]


def check(features: Features, config: Mapping[str, Any], name: str, arguments: Mapping[str, Any]) -> None:
    """Refuse weights that do not fit a host's features.

    Raises:
        UserError: the file is not there, is not what it was, or does not fit.
    """
    if config["task"].get("weights") is not None:
        _fitting(features, config, name, arguments)


def load(features: Features, config: Mapping[str, Any], name: str, arguments: Mapping[str, Any]) -> None:
    """Put the weights of `task.init` into a host's features, if it names any.

    Raises:
        UserError: see `check`.
    """
    if config["task"].get("weights") is not None:
        features.model.load_state_dict(_fitting(features, config, name, arguments))


def _fitting(
    features: Features, config: Mapping[str, Any], name: str, arguments: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Return the weights by the names of the host's features."""
    place = str(config["infra"]["weights"])
    state = read_verified(place, config["task"]["weights"], KEY)
    expected, state = features.model.state_dict(), dense.backbone(state)
    offsets = {key: value for key, value in expected.items() if OFFSETS in key}
    if not expected.keys() - offsets.keys() <= state.keys():
        state = _converted(state, config, name, arguments)
    state = resize_positions({**offsets, **state}, features.model)
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
            "\n  ".join([f"the weights at {place} do not fit {config['op']['name']} in {name}", *listed]),
            FITTING,
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
        raise UserError(does_not_fit, FITTING) from error
