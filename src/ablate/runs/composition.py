"""Hydra's composition errors in the project's own form: what was given, what is near, the way out."""

from __future__ import annotations

import re

from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ablate.configuration import conf_dir
from ablate.errors import UserError, unknown

FOLDERS = ("study", "variant")


def _choices(group: str) -> list[str]:
    root = conf_dir() / group
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))


def explain(error: HydraException) -> UserError:
    """The user's error behind a failed composition."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        path = error.missing_cfg_file.removesuffix(".yaml")
        group, _, choice = path.rpartition("/")
        flat = path.partition("/")[0]  # `study` and `variant` have choices in folders of their own
        if flat in FOLDERS:
            return unknown(flat, path.removeprefix(f"{flat}/"), _choices(flat))
        if error.options:
            return unknown(group, choice, error.options)
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and isinstance(cause.parent_node, DictConfig):
        key = str(cause.full_key)
        parent, _, last = key.rpartition(".")
        return unknown(
            f"setting of {parent}:" if parent else "setting", last, [str(k) for k in cause.parent_node]
        )
    lines = [line for line in str(error).splitlines() if line.strip()]
    hidden = re.compile(r"Set the environment variable|provider=|Config search path")
    shown = [line for line in lines if not hidden.search(line)]
    return UserError(
        "\n".join(shown), "`ablate train --help` lists groups and choices, `--cfg job` all settings"
    )
