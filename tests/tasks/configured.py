"""Configurations as the command line composes them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ablate.configuration import conf_dir
from ablate.store.folder import RunFolder


def configure(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("train", list(overrides)), resolve=True)
    return config


def trained(folder: Path, *overrides: str) -> RunFolder:
    """The finished run of a command line, computed on the CPU in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "ablate",
        "train",
        *overrides,
        f"infra.runs_dir={folder}",
        "infra.device=cpu",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, cwd=folder.parent, check=False
    )
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*/metrics.jsonl")
    return RunFolder(path.parent)
