"""Arguments that every task reads from a run's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ablate import data, hosts
from ablate.errors import UserError
from ablate.hosts.features import Features, require_dense
from ablate.store.identity import WEIGHTS
from ablate.tasks import initial

FROZEN = ("frozen_stages", "frozen_norms")  # settings of a recipe


def network_arguments(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a host's name and its arguments: its own settings, and what the data set determines."""
    settings = dict(config["host"])
    name = settings.pop("name")
    for key in WEIGHTS["host"]:  # what the network begins with, see `pretrained`
        settings.pop(key, None)
    info = data.info(config["data"])
    channels, height, width = info.image_shape
    size = height if height == width else (height, width)
    return name, {"num_classes": info.num_classes, "in_chans": channels, "img_size": size, **settings}


def dense_arguments(config: Mapping[str, Any], *, any_size: bool) -> tuple[str, dict[str, Any]]:
    """Return a host's name and its arguments, without a classifier; `any_size`: for images of many sizes."""
    name, arguments = network_arguments(config)
    flexible = hosts.spec(name).flexible if any_size else {}
    return name, {**flexible, **arguments, "num_classes": 0}


def features(config: Mapping[str, Any], name: str, arguments: Mapping[str, Any]) -> Features:
    """Build a host with its operator, for its feature maps."""
    levels, recipe = hosts.feature_levels(name, **arguments), config["recipe"]
    frozen = {key: recipe[key] for key in FROZEN if key in recipe}
    map_norms = config["task"].get("map_norms", True)
    return Features(hosts.create(name, config["op"], **arguments), levels, **frozen, map_norms=map_norms)


def check_features(
    config: Mapping[str, Any], name: str, arguments: Mapping[str, Any], *, any_size: bool
) -> None:
    """Refuse a host without feature maps, an operator that does not fit, and weights that do not.

    Args:
        config: of a run.
        name: of the host.
        arguments: of the host.
        any_size: the network is given images of different sizes.

    Raises:
        UserError: says what does not fit.
    """
    require_dense(hosts.spec(name))
    hosts.check(name, config["op"], **arguments)
    _check_frozen(config, len(hosts.feature_levels(name, **arguments)))
    if any_size:
        hosts.require_any_size(name, config["op"], **arguments)
    if config["task"].get("weights"):
        with torch.device("meta"):
            built = features(config, name, arguments)
        initial.check(built, config, name, arguments)


def _check_frozen(config: Mapping[str, Any], stages: int) -> None:
    """Refuse to freeze stages that the host does not have, or weights that were not trained before."""
    frozen = {key: config["recipe"].get(key) for key in FROZEN}
    if (frozen["frozen_stages"] or 0) > stages:
        raise UserError(
            f"recipe.frozen_stages={frozen['frozen_stages']}: {config['host']['name']} has {stages} stages",
            f"use {stages} or less",
        )
    for key, value in frozen.items():
        if value and config["task"].get("init") is None:
            raise UserError(
                f"recipe.{key}={value} without task.init would keep what was drawn at random",
                f"give task.init, or recipe.{key}={type(value)()}".replace("False", "false"),
            )


def require_annotation(config: Mapping[str, Any], annotation: str, way_out: str) -> None:
    """Refuse a data set whose images are labelled in another way.

    Raises:
        UserError: says which labels there are, and which are needed.
    """
    found = data.info(config["data"]).annotations
    if annotation not in found:
        name = config["data"]["name"]
        raise UserError(
            f"data={name} has labels of the kind {' and '.join(found)}, and this task needs {annotation}",
            f"use {way_out}",
        )


def refuse_mixing(recipe: Mapping[str, Any], labelled: str) -> None:
    """Refuse a recipe that changes the label of a whole image.

    Args:
        recipe: of a run.
        labelled: what has a class in this task.

    Raises:
        UserError: names the setting.
    """
    for name in ("mixup", "cutmix", "label_smoothing"):
        if recipe.get(name):
            raise UserError(
                f"recipe.{name}={recipe[name]} is for a class per image; here {labelled} have one",
                f"use recipe.{name}=0",
            )
