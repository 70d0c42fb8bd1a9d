"""`ablate train`: Hydra composes the runs; a single run starts here, a sweep in a launcher."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

from ablate import commands

if TYPE_CHECKING:
    from omegaconf import DictConfig


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb, whose arguments are Hydra's."""
    verbs.add_parser("train", help="train one run or a study (Hydra's syntax; see `ablate train --help`)")


def train(arguments: list[str]) -> None:
    """Pass the rest of the command line to Hydra, and train a single run.

    Raises:
        UserError: a setting or choice that does not exist, or a run that cannot.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.plugins import Plugins
    from omegaconf import OmegaConf

    from ablate.cli.launchers import LAUNCHERS
    from ablate.compose.catalogue import publish
    from ablate.compose.explanation import explain, explained
    from ablate.compose.request import single
    from ablate.configuration import conf_dir
    from ablate.launch.search import sweeper
    from ablate.launch.study import run_study

    arguments = _in_project(arguments)
    sys.argv = ["ablate train", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come out as they are, to be explained here
    warnings.filterwarnings("ignore", message=".*overriding with `hydra.mode=MULTIRUN`.*")
    publish()
    Plugins.instance()  # loads all of them
    sweeper.publish()
    composed: list[tuple[DictConfig, list[str]]] = []

    def remember(config: DictConfig) -> None:
        """Hydra's task for a single run, which starts when Hydra has ended; sweeps go through a launcher."""
        typed: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
        composed.append((config, typed))

    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(remember)()
        requests = [single(config, overrides) for config, overrides in composed]
    except Exception as error:
        if not explained(error):
            raise
        raise explain(error, arguments) from error
    if requests:
        run_study(requests, LAUNCHERS["inline"])


def _in_project(arguments: list[str]) -> list[str]:
    """Add the folder of runs of a parent folder, where the command names none and there is none here."""
    runs_dir = commands.default_runs_dir()
    if not (words := commands.found_above(runs_dir)) or not _composes(arguments):
        return arguments
    print(words, file=sys.stderr)
    place = next((index for index, word in enumerate(arguments) if not word.startswith("-")), len(arguments))
    return [*arguments[:place], commands.train_override(runs_dir), *arguments[place:]]


def _composes(arguments: list[str]) -> bool:
    """True if these arguments start runs, whose folder of runs they leave open."""
    asked = any(word in ("-h", "--help", "--hydra-help", "--version") for word in arguments)
    named = any(word.lstrip("+").startswith(commands.RUNS_DIR) for word in arguments)
    return not asked and not named
