"""Conversion of whole detectors and segmenters, for a configuration of `ablate train`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ablate import tasks
from ablate.compose import structure
from ablate.compose.explanation import explain, explained
from ablate.configuration import conf_dir
from ablate.errors import UserError
from ablate.official import checkpoints, dense
from ablate.store.files import write_atomically
from ablate.store.metrics import DEFAULT, task_of


def convert_dense(source: Path, target: Path, overrides: Sequence[str]) -> None:
    """Write the weights of a whole detector or segmenter by our names.

    Args:
        source: the authors' file.
        target: the file to write.
        overrides: the configuration of the network, as for `ablate train`.

    Raises:
        UserError: a mistake in the configuration, another file, weights that do not fit; nothing is written.
    """
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            config: Any = OmegaConf.to_container(compose("train", list(overrides)), resolve=True)
    except Exception as error:
        if explained(error):
            raise explain(error, overrides) from error
        raise
    structure.check(config)
    if task_of(config) == DEFAULT:
        raise UserError(
            f"ablate convert without --model is for detectors and segmenters, not for task={DEFAULT}",
            "give --model NAME, or task=mask_rcnn, cascade_rcnn or segmentation with op, host and data",
        )
    task = tasks.of_run(config)
    task.check(config)
    with torch.device("meta"):
        network = task.build(config)
    converted = dense.convert(network, checkpoints.weights(checkpoints.read(source)))
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, lambda stream: torch.save({"state_dict": converted}, stream))
