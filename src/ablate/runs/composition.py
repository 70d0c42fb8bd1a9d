"""Hydra's composition errors in the project's own form: what was given, what is near, the way out."""

from __future__ import annotations

import re

from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ablate.errors import UserError, unknown


def explain(error: HydraException) -> UserError:
    """The user's error behind a failed composition."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = error.missing_cfg_file.rpartition("/")
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
