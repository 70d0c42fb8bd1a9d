"""Every configuration file composes, is accepted, and says what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ablate import data, hosts
from ablate.ops.configs import conf_dir
from ablate.training.loop import host_arguments
from ablate.training.recipe import read

CONF = conf_dir()
FILES = sorted(path.relative_to(CONF).with_suffix("") for path in CONF.rglob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_file_composes_and_opens_with_a_comment(path: Path) -> None:
    assert (CONF / path).with_suffix(".yaml").read_text(encoding="utf-8").startswith("#")
    group, choice = str(path.parent), path.name
    overrides = [] if group == "." else [f"{group}={choice}"]
    if group == "op/weights":  # the one level that needs a region of its own
        overrides.append("op/region=neighborhood")
    if choice == "hadamard_conv" or group == "op":
        overrides.append("host=swin_micro")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("train", overrides), resolve=True)
    read(config["recipe"])
    data.info(config["data"])
    if group != "recipe":
        name, arguments = host_arguments(config)
        if group == "host" and choice != "swin_micro":  # made for larger images than the default data
            arguments["img_size"] = hosts.spec(name).image_size
        if group == "data":
            arguments["img_size"] = 28
        hosts.check(name, config["op"], **arguments)
