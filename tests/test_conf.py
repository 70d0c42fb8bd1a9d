"""Every configuration file composes, is accepted, and says what it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tests.data import full_scale

from ablate import data, hosts, tasks
from ablate.configuration import conf_dir
from ablate.results.conditions import labels
from ablate.store.manifest import load
from ablate.training.recipe import read

CONF = conf_dir()
FILES = sorted(path.relative_to(CONF).with_suffix("") for path in CONF.rglob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_file_composes_and_opens_with_a_comment(path: Path) -> None:
    assert (CONF / path).with_suffix(".yaml").read_text(encoding="utf-8").startswith("#")
    group, choice = str(path.parent), path.name
    for flat in ("study", "variant"):  # their files lie in folders that are no groups of their own
        if group.startswith(f"{flat}/"):
            group, choice = flat, f"{group.removeprefix(flat)[1:]}/{choice}"
    overrides = [] if group == "." else [f"{group}={choice}"]
    if group == "op/weights":  # the one level that needs a region of its own
        overrides.append("op/region=neighborhood")
    if choice == "hadamard_gate":  # and the one that needs a norm of its own
        overrides.append("op/norm=tanh")
    if choice == "sampled":  # without keys at its taps, which the weights of the default operator need
        overrides.append("op=dynamic_filter")
    if choice == "hadamard_conv" or group == "op":
        overrides.append("host=swin_micro")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("train", overrides), resolve=True)
    read(config["recipe"])
    data.info(config["data"])
    if group != "recipe":
        name, arguments = tasks.of_run(config).network_arguments(config)
        if group == "study":
            hosts.check(name, config["op"], **arguments)
            return
        if group == "host" and choice != "swin_micro":  # made for larger images than the default data
            arguments["img_size"] = hosts.spec(name).image_size
        if group == "data":
            arguments["img_size"] = 28
        hosts.check(name, config["op"], **arguments)


STUDIES = sorted(
    path.relative_to(CONF / "study").with_suffix("").as_posix()
    for path in CONF.rglob("study/imagenet/**/*.yaml")
)
ANSWERS = {"sbatch": "cat >/dev/null; echo Submitted batch job 7", "scontrol": "echo MaxArraySize = 1001"}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM, a double of four shell scripts that takes every job."""
    for program in ("sbatch", "scontrol", "squeue", "srun"):
        script = tmp_path / "bin" / program
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\n{ANSWERS.get(program, ':')}\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")


SMALL = sorted(
    name
    for path in CONF.rglob("study/**/*.yaml")
    if not (name := path.relative_to(CONF / "study").with_suffix("").as_posix()).startswith(
        ("imagenet/", "ade20k/")
    )
)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("study", SMALL)
def test_small_studies_can_be_submitted(study: str, ablate: Callable, tmp_path: Path) -> None:
    """Every run is checked and frozen, and the baseline is one of the conditions."""
    config = yaml.safe_load((CONF / "study" / f"{study}.yaml").read_text())
    levels, baseline = config["hydra"]["sweeper"]["params"], config["study"]["baseline"] or {}
    more = []
    if "task.init" in levels:  # weights of another study's runs, which are not here
        more = ["task.init=null"]
        assert baseline["task.init"] in [yaml.safe_load(level) for level in levels["task.init"].split(",")]
    done = ablate("train", f"study={study}", "hydra/launcher=slurm", *more)
    assert done.code == 0, done.err
    assert len(load(tmp_path / "runs", study).runs) >= 5


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("study", STUDIES)
def test_full_scale_studies_can_be_handed_in(study: str, ablate: Callable, tmp_path: Path) -> None:
    """Every run is checked, frozen and packed, and SLURM takes it."""
    full_scale.write(tmp_path / "data")
    options = ["data.verify=off", f"infra.data_root={tmp_path}/data"]
    options += ["infra.devices=8", "infra.launcher.gpus=8", "infra.launcher.time=1440"]
    config = yaml.safe_load((CONF / "study" / f"{study}.yaml").read_text())
    inits = config["hydra"]["sweeper"]["params"].get("task.init", "null").split(",")
    if len(inits) > 1:  # weights of another study's runs, which are not here
        options += ["task.init=null", "data.validation_images=2"]
    done = ablate("train", f"study={study}", "hydra/launcher=slurm", *options)
    assert done.code == 0, done.err
    manifest = load(tmp_path / "runs", study)
    micro = yaml.safe_load((CONF / "study" / f"{study.removeprefix('imagenet/')}.yaml").read_text())["study"]
    baseline = {name: "null" if level is None else level for name, level in (micro["baseline"] or {}).items()}
    assert (manifest.factors, manifest.baseline or {}) == (micro["factors"], baseline)
    said = re.search(r"three seeds\. (\d+) runs", (CONF / "study" / f"{study}.yaml").read_text())[1]
    assert len(manifest.runs) * len(inits) == int(said)
    assert {run.seed for run in manifest.runs} == {0, 1, 2}
    for name, steps in manifest.paths.items():
        assert {*steps} <= {*labels(manifest)}, name
