"""The figures of a trained run, computed again from its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ablate import tasks
from ablate.data import Loader
from ablate.errors import UserError
from ablate.official.checkpoints import refuse_non_finite
from ablate.store.folder import find
from ablate.store.identity import without_weights
from ablate.store.metrics import TaskMetrics
from ablate.studies import trained
from ablate.training.device import float32_precision, resolve_device
from ablate.training.progress import Tracked

SPLITS = ("test", "validation")
FREE = ("task.evaluation.", "data.root=")  # settings that change neither network nor data set


class Computation(NamedTuple):
    """Device, precision and batches of an evaluation.

    Attributes:
        device: auto, cpu, cuda or cuda:1.
        precision: float32, float16 or bfloat16; the recipe's if None.
        workers: processes that read image files.
        batch_size: images in a batch, of data in memory; files are evaluated one by one.
    """

    device: str = "auto"
    precision: str | None = None
    workers: int = 0
    batch_size: int = 128


DEFAULT = Computation()


class Evaluated(NamedTuple):
    """Figures of a run on one split.

    Attributes:
        signature: of the run.
        metrics: those of its task.
        found: their values.
        recorded: test figures in the run's result.json; None if it lacks one, or for another split.
        images: number of images.
        data_set: its name.
    """

    signature: str
    metrics: TaskMetrics
    found: dict[str, float]
    recorded: dict[str, float] | None
    images: int
    data_set: str

    def text(self, figures: Mapping[str, float]) -> str:
        """Describe figures with their words and units."""
        return ", ".join(self.metrics[name].text(value) for name, value in figures.items())


def evaluate(
    runs_dir: Path,
    run: str,
    overrides: list[str],
    split: str = "test",
    computation: Computation = DEFAULT,
) -> Evaluated:
    """Evaluate the weights of a run that were best on validation; nothing in its folder changes.

    Args:
        runs_dir: folder of the runs.
        run: the beginning of a run's signature.
        overrides: of settings below `task.evaluation`, and of `data.root`.
        split: test or validation.
        computation: where and how it is computed.

    Raises:
        UserError: no such run, no weights, a setting that an evaluation cannot change, or outputs that are
            not finite.
    """
    folder = find(runs_dir, run)
    config = _overridden(folder.config(), overrides)
    task = tasks.of_run(config)
    task.check(without_weights(config))  # those that it began with may be gone by now
    target = resolve_device(computation.device)
    float32_precision(tf32=False)
    model = trained.network(folder, config).to(target)
    refuse_non_finite(model, str(folder.checkpoint_path))
    splits = trained.splits(config, computation.batch_size, target, computation.workers)
    loader: Loader = getattr(splits, split)
    precision = computation.precision or config["recipe"]["precision"]
    autocast = torch.autocast(target.type, dtype=getattr(torch, precision), enabled=precision != "float32")
    found = task.evaluate(model, Tracked(loader, "evaluating"), autocast).metrics
    broken = next((name for name, value in found.items() if not math.isfinite(value)), None)
    if broken is not None:
        raise UserError(
            f"{broken} of run {folder.signature} is {found[broken]}",
            "use --precision float32; if it stays so, the training diverged",
        )
    result = folder.result() if split == "test" else None
    known = result is not None and all(f"test_{name}" in result for name in found)
    recorded = {name: result[f"test_{name}"] for name in found} if result is not None and known else None
    return Evaluated(folder.signature, task.metrics, found, recorded, loader.samples, config["data"]["name"])


def _overridden(config: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Return a run's configuration with other settings of the evaluation."""
    others = [text for text in overrides if not text.startswith(FREE)]
    if others:
        raise UserError(
            f"{others[0]}: a run's network and data are those of its configuration",
            "settings below task.evaluation and data.root can be given",
        )
    try:
        given: Any = OmegaConf.to_container(OmegaConf.from_dotlist(overrides))
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(
            f"{' '.join(overrides)} cannot be read", "write KEY=VALUE, e.g. task.evaluation.flip=true"
        ) from error
    root = given.get("data", {}).get("root")
    if root is not None:
        config["infra"]["data_root"] = root
    if "task" in given:
        config["task"] = {**config["task"], **_merged(config["task"], given["task"])}
    return config


def _merged(settings: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: {**settings.get(key, {}), **value} if isinstance(value, dict) else value
        for key, value in given.items()
    }
