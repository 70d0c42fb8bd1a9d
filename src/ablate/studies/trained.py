"""A trained run from its folder: the network with its weights, and its data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ablate import data, tasks
from ablate.data import Splits
from ablate.errors import UserError
from ablate.store.damage import Damage, DamagedError
from ablate.store.folder import RunFolder
from ablate.training import checkpoint as checkpoints
from ablate.training.loop import build_model
from ablate.training.seeding import derive


def network(folder: RunFolder, config: Mapping[str, Any]) -> nn.Module:
    """Build the network of a run, in evaluation mode, with the weights that were best on validation.

    Raises:
        UserError: the run has no weights on disk.
        DamagedError: its checkpoint cannot be read.
    """
    model = build_model(config)
    found, damaged = checkpoints.load(folder.checkpoint_path, model.state_dict())
    if damaged:
        raise DamagedError([Damage(path, reason) for path, reason in damaged.items()])
    if found is None:
        raise UserError(
            f"run {folder.signature} has no weights on disk",
            "train it, or keep its checkpoint: `ablate clean` without --checkpoints does",
        )
    model.load_state_dict(found.best or found.model)
    return model.eval()


def splits(
    config: Mapping[str, Any], images: int, device: str | torch.device = "cpu", workers: int = 0
) -> Splits:
    """Return the splits of a run's data set, `images` in a batch of evaluation. Nothing is downloaded."""
    root = config["infra"]["data_root"]
    return data.create(
        config["data"],
        seed=derive(config["seed"], "data"),
        batch_size=1,  # of training images, which are not read
        augment=config["recipe"]["augment"],
        evaluation_batch_size=images,
        device=device,
        data_root=Path(str(root)) if root else None,
        download=False,
        workers=workers,
        annotation=tasks.of_run(config).annotation,
    )
