"""Every level of a configuration refuses what it does not know."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ablate.compose import structure
from ablate.compose.check import check
from ablate.compose.request import Request
from ablate.compose.study import read as read_study
from ablate.configuration import conf_dir
from ablate.errors import UserError


def resolved(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        plain: Any = OmegaConf.to_container(compose("train", [*overrides]), resolve=True)
    return plain


CONFIGS = {
    "memory": resolved("op=elsa", "data=fashion_mini"),
    "files": resolved("op=lesa_window", "data=synthetic", "recipe=debug", "host=resnet_micro"),
}


def groups(node: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for key, value in node.items():
        if isinstance(value, dict):
            yield from groups(value, (*path, key))


def accepted(config: dict[str, Any]) -> None:
    structure.check(config)
    read_study(config["study"])
    check([Request(config, {})])


@pytest.mark.parametrize(
    ("name", "path"), [(name, path) for name, config in CONFIGS.items() for path in groups(config)]
)
def test_an_unknown_setting_is_refused_wherever_it_stands(name: str, path: tuple[str, ...]) -> None:
    config = copy.deepcopy(CONFIGS[name])
    accepted(config)
    node = config
    for part in path:
        node = node[part]
    node["bogus"] = 1
    with pytest.raises(UserError) as refused:
        accepted(config)
    assert "bogus" in str(refused.value)
