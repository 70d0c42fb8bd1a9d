"""Register with Hydra what has no file in `conf`: operators, hosts and data sets of plug-ins."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from hydra.core.config_store import ConfigStore

from ablate import ops, plugins
from ablate.configuration import conf_file
from ablate.ops.settings import PLAIN

FROM_DATA = ("num_classes", "in_chans", "img_size")  # arguments of a host that the data set determines


def publish() -> None:
    """Make `op=`, `host=` and `data=` find everything that is registered, with its defaults as settings."""
    for name in ops.names():
        _store("op", name, ops.spec(name).defaults)
    if not plugins.modules():
        return  # hosts and data sets of this package have files, and to import them takes seconds
    from ablate import data, hosts

    for name in hosts.names():
        _store("host", name, {"name": name, "stages": None, **_arguments(hosts.spec(name).build)})
    for name in data.names():
        _store("data", name, data.defaults(name))


def _store(group: str, name: str, node: Mapping[str, Any]) -> None:
    if conf_file(group, f"{name}.yaml") is None:
        ConfigStore.instance().store(group=group, name=name, node=dict(node), provider="ablate")


def _arguments(build: Any) -> dict[str, Any]:
    """Return the arguments of a host that a configuration can have, with their defaults."""
    parameters = inspect.signature(build).parameters.values()
    return {
        parameter.name: list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        for parameter in parameters
        if parameter.name not in FROM_DATA
        and (parameter.default is None or isinstance(parameter.default, (*PLAIN, tuple, list)))
    }
