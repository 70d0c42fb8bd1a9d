"""Configurations as the command line composes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tests import command

from ablate.configuration import conf_dir
from ablate.store.folder import RunFolder


def configure(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("train", list(overrides)), resolve=True)
    return config


def trained(folder: Path, *overrides: str) -> RunFolder:
    """The finished run of a command line, computed on the CPU in a process of its own."""
    settings = (f"infra.runs_dir={folder}", "infra.device=cpu")
    done = command.run("train", *overrides, *settings, folder=folder.parent)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*/metrics.jsonl")
    return RunFolder(path.parent)
