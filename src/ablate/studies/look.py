"""Pictures of a trained run on test images: filters, gates or receptive fields, and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ablate import data, hosts, tasks
from ablate.errors import UserError
from ablate.execution.staleness import changed_since
from ablate.ops import inspection
from ablate.ops.local import LocalOperator
from ablate.results import figures
from ablate.results.figures.maps import Column
from ablate.store.folder import find
from ablate.store.metrics import DEFAULT, task_of
from ablate.studies import trained
from ablate.tasks.contract import Shown, displayable

MOST_MAPS = 8  # next to an image
MOST_IMAGES = 8  # of a folder


@dataclass(frozen=True)
class Look:
    """Result of a look.

    Attributes:
        paths: files of the figure.
        drawn: number of maps in it.
        found: number of maps that the operators have.
        predicted: of each image file that is not of the data set, what the network says of it.
        changed: modules and data that are not those which computed the run.
    """

    paths: Sequence[Path]
    drawn: int
    found: int
    predicted: Sequence[str] = ()
    changed: Sequence[str] = ()


def look(runs_dir: Path, run: str, images: int | Path, at: tuple[float, float], output: Path | None) -> Look:
    """Draw the filters, gates or receptive fields of every operator of a run, and predictions beside labels.

    Args:
        runs_dir: folder of the runs.
        run: the beginning of a run's signature.
        images: number of test images; or a folder of image files, or one: the first MOST_IMAGES are drawn.
        at: the position whose filters are drawn, in shares of height and width.
        output: a folder; else `look` in the run's own.

    Raises:
        UserError: no such run, a run without weights, or a position outside the image.
    """
    if not all(0 <= share < 1 for share in at):
        raise UserError(
            f"--at {at[0]} {at[1]}", "give shares of height and width: 0 or more, and less than 1"
        )
    folder = find(runs_dir, run)
    config = folder.config()
    model = trained.network(folder, config)
    predicted: list[str] = []
    if isinstance(images, Path):
        files, shown, found = data.other_images(config["data"], images.expanduser(), MOST_IMAGES)
        answers: list[Shown] = []
        predicted = _predicted(model, config, files, shown)
        if found > len(files):
            predicted.append(f"the first {len(files)} of {found} images are shown")
    else:
        batch = next(iter(trained.splits(config, images).test.epoch(0)))
        with torch.no_grad():
            answers = tasks.of_run(config).answers(model, batch)
        shown = _images(batch)
    caught = _features(model, shown)
    columns = [column for name, (operator, x) in caught.items() for column in _columns(name, operator, x, at)]
    target = (output or folder.path / "look").expanduser()
    target.mkdir(parents=True, exist_ok=True)
    drawn = figures.panels(np.stack([displayable(image) for image in shown]), columns[:MOST_MAPS])
    name = f"{config['op']['name']}-{folder.signature}"
    paths = figures.save(drawn, target / name)
    if answers:
        pictures = [displayable(one.image) for one in answers]
        pairs = [(one.labels, one.predictions) for one in answers]
        names = data.info(config["data"]).names(tasks.of_run(config).annotation)
        paths += figures.save(figures.predictions(pictures, pairs, names), target / f"{name}-predictions")
    (changed,) = changed_since([folder])
    return Look(paths, min(MOST_MAPS, len(columns)), len(columns), predicted, changed)


def _predicted(model: nn.Module, config: dict[str, Any], files: Sequence[str], images: Tensor) -> list[str]:
    """Describe the three most probable classes of each image; of other tasks than classification nothing."""
    if task_of(config) != DEFAULT:
        return []
    with torch.no_grad():
        shares = model(images).float().softmax(-1)
    names = data.info(config["data"]).names(data.CLASS)
    lines = []
    for path, (values, classes) in zip(
        files, zip(*shares.topk(min(3, shares.shape[-1])), strict=True), strict=True
    ):
        named = [names[label] if label < len(names) else f"class {label}" for label in classes.tolist()]
        said = (f"{name} {100 * share:.0f} %" for name, share in zip(named, values.tolist(), strict=True))
        lines.append(f"{path}: {', '.join(said)}")
    return lines


def _images(batch: Any) -> Tensor:
    """Return the images of a batch, normalised; of several sizes those that have the first one's."""
    images = batch[0]
    if isinstance(images, Tensor):
        return images
    return torch.stack([image for image in images if image.shape == images[0].shape])


def _features(model: nn.Module, images: Tensor) -> dict[str, tuple[nn.Module, Tensor]]:
    """Return every operator with its input features, by its name in the network."""
    found: dict[str, tuple[nn.Module, Tensor]] = {}
    handles = []
    for name, operator, _ in hosts.operators(model):
        found[name] = (operator, images)

        def catch(module: nn.Module, arguments: tuple[Tensor, ...], name: str = name) -> None:
            found[name] = (module, arguments[0].detach())

        handles.append(operator.register_forward_pre_hook(catch))
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return found


def _columns(name: str, operator: nn.Module, x: Tensor, at: tuple[float, float]) -> list[Column]:
    height, width = x.shape[1:3]
    if isinstance(operator, LocalOperator):
        stride = operator.region.stride  # it has filters for every `stride`-th position
    else:
        with torch.no_grad():
            stride = max(1, height // operator(x).shape[1])
    position = int(at[0] * height) // stride, int(at[1] * width) // stride
    place = (at[0] * height // 1 + 0.5) / height, (at[1] * width // 1 + 0.5) / width
    if isinstance(operator, LocalOperator):
        maps = inspection.filters(operator, x, position)
        by_head = maps.unflatten(1, (operator.heads, -1)).mean(2)
        return [
            Column(f"{name}\nhead {head + 1}", by_head[:, head].numpy(), place)
            for head in range(operator.heads)
        ]
    gate = inspection.gate(operator, x)
    field = Column(
        f"{name}\nreceptive field", inspection.receptive_field(operator, x, position).numpy(), place
    )
    return [field] if gate is None else [field, Column(f"{name}\ngate", gate.mean(1).numpy())]
