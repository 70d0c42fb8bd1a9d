"""Accuracy of a published checkpoint, as timm's `validate` measures it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from timm.data import resolve_data_config

from ablate import data
from ablate.compose.explanation import explain
from ablate.configuration import conf_dir
from ablate.errors import UserError
from ablate.official import checkpoints
from ablate.tasks import get
from ablate.training.device import float32_precision, resolve_device
from ablate.training.progress import Tracked


@dataclass(frozen=True)
class Evaluation:
    """Settings of an evaluation; None means the model's own."""

    model: str
    checkpoint: Path
    ema: bool
    overrides: tuple[str, ...]  # data=imagenet data.root=DIR op.region.kernel=5
    img_size: int | None
    crop_pct: float | None
    batch_size: int
    workers: int
    device: str
    precision: str


def run(asked: Evaluation) -> dict[str, float]:
    """Print and return loss, top-1 and top-5 over the test split (for ImageNet its 50,000 validation images).

    Images are resized, cropped and normalised as the model's published configuration says.

    Raises:
        UserError: unknown model or data set, weights or classes that do not fit, missing data, weights or
            outputs that are not finite.
    """
    device = resolve_device(asked.device)
    float32_precision(tf32=False)
    of_data = [text for text in asked.overrides if text.startswith(("data=", "data."))]
    of_model = [text for text in asked.overrides if text not in of_data]
    config, root = _data(of_data)
    info = data.info(config)
    state = checkpoints.weights(checkpoints.read(asked.checkpoint), ema=asked.ema)
    model = checkpoints.build(asked.model, state, of_model, asked.img_size)
    checkpoints.refuse_non_finite(model, str(asked.checkpoint))
    if getattr(model, "num_classes", info.num_classes) != info.num_classes:
        raise UserError(
            f"the weights are for {model.num_classes} classes, {config['name']} has {info.num_classes}",
            "evaluate on the data set that the weights were trained for",
        )
    settings = resolve_data_config(model=model)
    size = asked.img_size or settings["input_size"][-1]
    loader = data.test_split(
        config,
        data_root=root,
        size=size,
        crop_pct=asked.crop_pct or settings["crop_pct"],
        interpolation=settings["interpolation"],
        mean=settings["mean"],
        std=settings["std"],
        batch_size=asked.batch_size,
        device=str(device),
        workers=asked.workers,
    )
    enabled = asked.precision != "float32"
    precision = torch.autocast(device.type, dtype=getattr(torch, asked.precision), enabled=enabled)
    found = get("classification").evaluate(model.to(device), Tracked(loader, "evaluating"), precision).metrics
    if not math.isfinite(found["loss"]):
        raise UserError(
            f"outputs of {asked.model} with {asked.checkpoint} are not finite: the loss is {found['loss']}",
            "use --precision float32 or bfloat16"
            if asked.precision == "float16"
            else "the weights are those of a training that diverged, or do not belong to this network",
        )
    print(
        f"{asked.model}: top-1 {found['top1']:.3f} %, top-5 {found['top5']:.3f} %, loss {found['loss']:.4f} "
        f"({loader.samples:,} images of {size}×{size}, {config['name']})"
    )
    return found


def _data(overrides: list[str]) -> tuple[dict[str, Any], Path | None]:
    """The data set's configuration, and the folder of `data.root=…`."""
    root = next((text.partition("=")[2] for text in overrides if text.startswith("data.root=")), None)
    others = [text for text in overrides if not text.startswith("data.root=")]
    if not any(text.startswith("data=") for text in others):
        others.insert(0, "data=imagenet")
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            config: Any = OmegaConf.to_container(compose("train", others).data, resolve=True)
    except HydraException as error:
        raise explain(error) from error
    return config, None if root is None else Path(root).expanduser()
