"""Settings of `infra`: what is refused, and configurations that were frozen before a setting was added."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tests.training.interrupted import StopAfter

from ablate.compose import infra
from ablate.configuration import conf_dir
from ablate.errors import UserError
from ablate.execution.execute import execute
from ablate.store import identity
from ablate.store.folder import RunFolder
from ablate.training import cores
from ablate.training.distributed import Group

SMALL = ("recipe=debug", "data=synthetic", "data.train=64", "infra.tracking=none", "infra.device=cpu")


def configure(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", [*SMALL, *overrides])
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return plain


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("infra.memory_format=channel_last", "did you mean 'channels_last'"),
        ("infra.compile=max-autotune", "expected bool"),
        ("infra.workers=some", "neither auto nor a whole number"),
        ("infra.workers=-1", "neither auto nor a whole number"),
        ("infra.workers=1.5", "neither auto nor a whole number"),
    ],
)
def test_what_cannot_be_is_refused(override: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        infra.read(configure(override)["infra"])


def test_how_a_run_is_executed_is_no_part_of_its_identity() -> None:
    changed = configure("infra.compile=true", "infra.memory_format=channels_last", "infra.workers=3")
    assert infra.read(changed["infra"]).workers == "3"
    assert identity.signature(changed) == identity.signature(configure())
    # of the version before these settings, whose runs are to be found again
    assert identity.signature(configure("op=elsa", "seed=3")) == "b475cb31ffd4"


@pytest.mark.parametrize(
    ("available", "processes", "side_by_side", "expected"),
    [(16, 1, 1, 15), (64, 4, 1, 15), (64, 1, 1, 16), (2, 1, 1, 1), (1, 2, 1, 1), (16, 1, 4, 3)],
)
def test_workers_are_the_share_of_the_cores(
    available: int, processes: int, side_by_side: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "allowed", lambda: available)
    monkeypatch.delenv("SLURM_CPUS_ON_NODE", raising=False)
    monkeypatch.setenv(cores.SIDE_BY_SIDE, str(side_by_side))
    group = Group(world_size=processes, local_world_size=processes)
    assert cores.loader_workers("auto", group) == expected
    assert cores.loader_workers(0, group) == 0
    assert cores.loader_workers("7", group) == 7


def frozen_before(path: Path) -> RunFolder:
    """A run folder as a version without `compile` and `memory_format` left it, pending."""
    config = configure()
    for name in infra.EARLIER:
        del config["infra"][name]
    config["infra"]["workers"] = 4
    config["infra"]["runs_dir"] = str(path)
    config["study"]["name"] = "earlier"
    folder = RunFolder(path / identity.signature(config))
    folder.path.mkdir(parents=True)
    folder.config_path.write_text(yaml.safe_dump(config, sort_keys=False))
    return folder


def test_a_run_that_was_frozen_before_resumes_and_is_looked_at(
    tmp_path: Path, ablate: Callable[..., Any]
) -> None:
    from ablate.store.manifest import Manifest, PlannedRun

    runs_dir = tmp_path / "runs"
    folder = frozen_before(runs_dir)
    config = folder.config()
    key = identity.pair_key(config)
    planned = [PlannedRun(folder.signature, key, 0, {"op": "lsa"})]
    Manifest(name="earlier", factors=["op"], runs=planned, command="ablate train").save(runs_dir)
    with pytest.raises(KeyboardInterrupt):
        execute(folder.path, config, StopAfter(2))
    status = ablate("status", "earlier", "--runs-dir", str(runs_dir))
    assert "1 interrupted" in status.out, status.err
    again = ablate(
        "retry", "earlier", "infra.memory_format=auto", "--runs-dir", str(runs_dir), "--launcher", "inline"
    )
    assert again.code == 0, again.err
    assert folder.finished()
    numerics = json.loads(folder.environment_path.read_text())["numerics"]
    assert (numerics["compile"], numerics["memory_format"]) == (False, "contiguous")
    looked = ablate("look", folder.signature[:6], "--runs-dir", str(runs_dir), "--images", "1")
    assert looked.code == 0, looked.err
