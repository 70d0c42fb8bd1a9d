"""A requested run: its resolved configuration, and the overrides that belong to its study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ablate.compose import extensions, structure
from ablate.errors import UserError


@dataclass(frozen=True)
class Request:
    """One requested run: its resolved configuration and the overrides that led to it."""

    config: dict[str, Any]
    overrides: dict[str, str]


def single(config: DictConfig, overrides: Sequence[str]) -> Request:
    """Request the run of a configuration that Hydra composed."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    plain.pop("hydra", None)
    return request(plain, overrides)


def request(plain: dict[str, Any], overrides: Sequence[str]) -> Request:
    """Request the run of a resolved configuration.

    Raises:
        UserError: the configuration lacks a group, has a setting that does not exist, or names a plug-in that
            cannot be loaded.
    """
    structure.check(plain)
    extensions.resolve(plain["infra"])
    if root := plain["infra"].get("data_root"):  # frozen as an absolute path: a retry may start elsewhere
        plain["infra"]["data_root"] = str(Path(str(root)).expanduser().absolute())
    _resolve_weights(plain)
    named = (override.lstrip("+").partition("=") for override in overrides if not override.startswith("~"))
    levels = {key: value for key, _, value in named if not key.startswith(("hydra", "infra", "study"))}
    return Request(plain, levels)


def _resolve_weights(plain: dict[str, Any]) -> None:
    """Find the weights that the network begins with, if any; what is not needed is not imported."""
    host, task = (plain.get(group) or {} for group in ("host", "task"))
    dense = any(task.get(key) is not None for key in ("init", "weights"))
    if host.get("pretrained") not in (None, False) or host.get("pretrained_digest") is not None:
        from ablate.tasks import pretrained

        pretrained.resolve(plain)
    elif dense:
        from ablate.tasks import initial

        initial.resolve(plain)
    elif plain["infra"].get("weights") is not None:
        raise UserError(
            "infra.weights without weights to begin with",
            "use host.pretrained or task.init, which fill it in",
        )
