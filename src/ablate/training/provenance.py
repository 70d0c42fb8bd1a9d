"""Provenance of a run: the code and data that compute it, and some of its predictions to look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ablate import data, hosts, ops
from ablate.data import Loader
from ablate.plugins import Registry
from ablate.results.examples import Example, Examples
from ablate.store import code, metrics
from ablate.tasks import own, pretrained
from ablate.tasks.contract import Task, first, pixels

EXAMPLES = 3  # test images whose predictions a run keeps


def modules(config: Mapping[str, Any], model: nn.Module, *parts: object) -> set[str]:
    """Return the names of the modules in which a run's network, data set and other parts are defined."""
    host = hosts.spec(config["host"]["name"])
    registered = (registry.modules.get(name) for registry, name in _registrations(config))
    return {
        *filter(None, registered),
        *(type(module).__module__ for module in model.modules()),
        *(type(part).__module__ for part in parts),
        *(function.__module__ for function in (host.build, host.slots, host.fill)),
        data.module_of(config["data"]),
        *own.modules(metrics.task_of(config)),
        *([code.INITIAL] if (config.get("task") or {}).get("weights") else []),
        *([code.INITIAL, code.PRETRAINED] if pretrained.asked(config) else []),
    }


def facts(config: Mapping[str, Any]) -> dict[str, str]:
    """Return digests of the data set's files, and the versions that registrations state."""
    root = config["infra"]["data_root"]
    versions = {
        f"{code.VERSION}{name}": registry.versions[name]
        for registry, name in _registrations(config)
        if name in registry.versions
    }
    return {**data.content(config["data"], Path(str(root)) if root else None), **versions}


def _registrations(config: Mapping[str, Any]) -> list[tuple[Registry[Any], str]]:
    """Return the registries in which a run's operator, host, data set and metrics are, with their names."""
    task = metrics.task_of(config)
    return [
        (ops.registry.registration(), config["op"]["name"]),
        (hosts.registration(), config["host"]["name"]),
        (data.DATA_SETS, config["data"]["name"]),
        *((metrics.OWN, own.metric.name) for own in metrics.own_of(task)),
    ]


class Remembering:
    """A split that keeps the first images of its first batch, which are not read again."""

    def __init__(self, loader: Loader) -> None:
        self.loader, self.samples = loader, loader.samples
        self.batch: Any = None

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Any]:
        """Yield the loader's batches."""
        for batch in self.loader.epoch(epoch, first_batch):
            if self.batch is None:
                self.batch = first(batch, EXAMPLES)
            yield batch


def predictions(task: Task, model: nn.Module, batch: Any, names: Sequence[str]) -> Examples:
    """Return the images of a batch with their labels and predictions, to be drawn.

    Args:
        task: of the network.
        model: the network.
        batch: as the loader of the test split yields it.
        names: of the classes.
    """
    with torch.no_grad():
        answers = task.answers(model, batch)
    kept = [Example(pixels(one.image), one.labels, one.predictions) for one in answers]
    return Examples(kept, list(names))
