"""Weights that a network of classification begins with: `host.pretrained`.

They come from timm (`true` for the weights that timm publishes for the host, a tag, or `timm:NAME.TAG`), from
a run (`run:SIGNATURE`, `study:NAME`) or from a checkpoint file, as in `initial`. Everything outside of the
operator's slots has to be among them, with two exceptions: a classifier of other classes is drawn by the
seed, and the first layer is adapted to other input channels as timm does it. An operator takes its weights
whole or not at all: what belongs to another operator is left out, and that slot is drawn by the seed. `begin`
returns what became of every tensor, for the run's environment.json.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ablate import hosts
from ablate.errors import UserError
from ablate.models.resizing import resize_positions
from ablate.official import COUNTER, named, placed
from ablate.official.pretrained import PREFIX as TIMM
from ablate.store.identity import WEIGHTS
from ablate.store.metrics import DEFAULT, task_of
from ablate.tasks import initial

KEY = "host.pretrained"
DIGEST = WEIGHTS["host"][1]  # setting of a host that `resolve` fills in
PREFIXES = (initial.RUN, initial.STUDY, initial.FILE, TIMM)
SIGNATURE = re.compile(r"[0-9a-f]{6,12}")
FILES = (".pt", ".pth", ".tar", ".ckpt", ".bin")
WAY_OUT = "name weights of the same host, trained with the same host.stages and host.strided"
FORMS = "true, a tag of timm, timm:NAME.TAG, run:SIGNATURE, study:NAME or the path of a checkpoint"


def asked(config: Mapping[str, Any]) -> bool:
    """Return True if a resolved configuration begins with weights of `host.pretrained`."""
    return (config.get("host") or {}).get(DIGEST) is not None


def resolve(config: dict[str, Any]) -> None:
    """Find what `host.pretrained` names, and write its digest and place into the configuration.

    Raises:
        UserError: there are no such weights; or the task is another one, which has `task.init`.
    """
    host, infra = config["host"], config["infra"]
    given, value = host.pop(DIGEST, None), host.get("pretrained")
    if value in (None, False):
        raise UserError(f"host.{DIGEST} without {KEY}", f"give {KEY}, which determines it")
    if (task := task_of(config)) != DEFAULT:
        raise UserError(
            f"{KEY}={value} with task={task}: its host has no classifier",
            "use task.init for the same weights",
        )
    source = _source(value, str(host["name"]))
    host["pretrained"], host[DIGEST], infra["weights"] = initial.locate(source, given, config, KEY)


def _source(value: Any, host: str) -> str:
    """Return the weights that a value of `host.pretrained` names, as `task.init` would have them."""
    if value is True:
        return f"{TIMM}{_published(host)}"
    if not isinstance(value, str) or not value:
        raise UserError(f"{KEY}={value!r}", f"give {FORMS}")
    if value.startswith(PREFIXES) or "/" in value or value.endswith(FILES) or Path(value).is_file():
        return value
    if SIGNATURE.fullmatch(value):
        return f"{initial.RUN}{value}"
    return f"{TIMM}{value}" if "." in value else f"{TIMM}{_architecture(host)}.{value}"


def _published(host: str) -> str:
    """Return the model with its tag whose weights timm loads by default."""
    tag = _config(host).get("tag")
    return f"{_architecture(host)}.{tag}" if tag else _architecture(host)


def _architecture(host: str) -> str:
    if found := _config(host).get("architecture"):
        return str(found)
    raise UserError(
        f"{KEY}: timm publishes no weights of host={host}", "give run:SIGNATURE, study:NAME or a checkpoint"
    )


def _config(host: str) -> Mapping[str, Any]:
    with torch.device("meta"):
        found = getattr(hosts.create(host, None), "pretrained_cfg", None)
    return found or {}


def check(config: Mapping[str, Any], name: str, arguments: Mapping[str, Any]) -> None:
    """Refuse weights that are not those of a host.

    Raises:
        UserError: the file is not there, is not what it was, or does not fit.
    """
    if asked(config):
        with torch.device("meta"):
            model = hosts.create(name, config["op"], **arguments)
        fitting(model, config, name, arguments)


def begin(
    model: nn.Module, config: Mapping[str, Any], name: str, arguments: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Put the weights of `host.pretrained` into a network, if it names any.

    Returns:
        Where they come from, how many tensors were loaded, and the names of those that were drawn by the
        seed, adapted, or not used. None without `host.pretrained`.

    Raises:
        UserError: see `check`.
    """
    if not asked(config):
        return None
    state, record = fitting(model, config, name, arguments)
    model.load_state_dict(state)
    return record


def described(record: Mapping[str, Any]) -> str:
    """Say in a line what `begin` loaded."""
    parts = [f"begins with {record['from']}: {record['loaded']} tensors"]
    for key, words in (("adapted", "adapted"), ("drawn", "drawn by the seed"), ("unused", "not used")):
        if names := record[key]:
            parts.append(f"{len(names)} {words} ({named(names)})")
    return "; ".join(parts)


def fitting(
    model: nn.Module, config: Mapping[str, Any], name: str, arguments: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return all tensors of a network, as it begins, and the record of `begin`.

    Args:
        model: on any device; its own tensors are those that were drawn.
        config: of the run.
        name: of the host.
        arguments: of the host.

    Raises:
        UserError: see `check`.
    """
    place = str(config["infra"]["weights"])
    state = initial.read_verified(place, config["host"][DIGEST], KEY)
    own = model.state_dict()
    if own.keys() <= state.keys():
        found, unused = state, [*(state.keys() - own.keys())]
    else:
        found, unused = placed(model, state)
    resized = resize_positions(found, model)
    first = _varying(own, name, arguments, "in_chans")
    resized |= {key: _for_channels(resized[key], own[key]) for key in first & resized.keys()}
    adapted = {key for key, value in resized.items() if value is not found[key]}
    found = {key: value for key, value in resized.items() if key in own}
    classifier = _varying(own, name, arguments, "num_classes")
    misfit = [key for key, value in found.items() if value.shape != own[key].shape]
    missing = [key for key in own if key not in found and not key.endswith(COUNTER)]
    slots = tuple(f"{path}." for path, _, _ in hosts.operators(model))
    lacking = tuple(slot for slot in slots if any(key.startswith(slot) for key in (*missing, *misfit)))
    drawn = {key for key in own if key.startswith(lacking)} if lacking else set()
    drawn |= classifier if classifier & {*missing, *misfit} else set()
    refused = {
        "missing": [key for key in missing if key not in drawn],
        "of another shape": [
            f"{key} {tuple(found[key].shape)} instead of {tuple(own[key].shape)}"
            for key in misfit
            if key not in drawn
        ],
        "without a place": [key for key in unused if not (lacking and key.startswith(_around(lacking)))],
    }
    if any(refused.values()):
        lines = [f"{len(keys)} {words}: {named(sorted(keys))}" for words, keys in refused.items() if keys]
        raise UserError("\n  ".join([f"the weights at {place} are not those of {name}", *lines]), WAY_OUT)
    loaded = {key: value for key, value in found.items() if key not in drawn}
    record = {
        "from": config["host"]["pretrained"],
        "digest": config["host"][DIGEST],
        "loaded": len(loaded),
        "adapted": sorted(adapted - drawn),
        "drawn": sorted(drawn),
        "unused": sorted({*unused, *(found.keys() & drawn)}),
    }
    return {**own, **loaded}, record


def _around(slots: tuple[str, ...]) -> tuple[str, ...]:
    """Return prefixes that another operator's weights have in slots: hosts may put a wrapper around ours."""
    return tuple(slot.removesuffix("operator.") for slot in slots)


def _varying(own: Mapping[str, Tensor], name: str, arguments: Mapping[str, Any], argument: str) -> set[str]:
    """Return the names of the tensors whose shape follows an argument of the host."""
    more = {**arguments, argument: arguments[argument] + 1}
    with torch.device("meta"):
        other = hosts.create(name, None, **more).state_dict()
    return {key for key, value in other.items() if key in own and own[key].shape != value.shape}


def _for_channels(weight: Tensor, own: Tensor) -> Tensor:
    """Adapt a convolution of three input channels to those of the network's own, as timm does."""
    from timm.models import adapt_input_conv

    if weight.shape == own.shape or not weight.ndim == own.ndim == 4 or weight.shape[1] != 3:
        return weight
    return adapt_input_conv(own.shape[1], weight)
