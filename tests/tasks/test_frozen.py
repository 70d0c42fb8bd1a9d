"""Stages and batch norms that keep what they begin with, also where two processes train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tasks.configured import configure, trained
from tests.tasks.test_dense_runs import TINY, training_loss
from torch import Tensor

from ablate import hosts, tasks
from ablate.errors import UserError
from ablate.store.identity import signature
from ablate.tasks import initial
from ablate.training import checkpoint, loop, optimization
from ablate.training.recipe import read

NETWORK = ("op=lesa_qr", "host=resnet_micro", "host.strided=keep", "host.stages=[2]", "+host.deformable=[2]")
FROZEN = ("+recipe.frozen_stages=1", "+recipe.frozen_norms=true")
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture
def weights(tmp_path: Path) -> dict[str, Tensor]:
    """Write weights of a classifier, whose batch norms have seen images and which has no offsets."""
    settings: dict[str, Any] = {"in_chans": 1, "stages": [2], "strided": "keep"}
    torch.manual_seed(0)
    model = hosts.create("resnet_micro", "lesa_qr", **settings, img_size=32)
    model.train()(torch.randn(8, 1, 32, 32))
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    return model.state_dict()


@pytest.mark.parametrize("task", TINY)
def test_what_is_frozen_has_no_gradient_and_is_not_in_the_optimiser(
    task: str, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    chosen = (f"task={task}", *TINY[task], *NETWORK, f"task.init={tmp_path / 'weights.pt'}")
    config = configure(*chosen, *FROZEN)
    initial.resolve(config)
    tasks.get(task).check(config)
    model = loop.build_model(config)
    tasks.get(task).begin(model, config)
    training_loss(task, model, config).backward()
    named = dict(model.named_parameters())
    still = {name for name in named if name.startswith(("features.model.conv1", "features.model.bn1"))}
    still |= {name for name in named if name.startswith("features.model.layer1.")}
    assert len(still) > 10
    assert {name for name, value in named.items() if value.grad is None} == still
    groups = optimization.optimizer(model, read(config["recipe"])).param_groups
    optimised = {id(value) for group in groups for value in group["params"]}
    assert optimised == {id(value) for name, value in named.items() if name not in still}
    own = model.features.model.state_dict()
    assert all(torch.equal(own[name], weights[name]) for name in own if name.endswith(STATISTICS))
    assert not own["layer2.1.conv2.operator.unary.spatial.conv_offset.weight"].any()


def test_weights_and_statistics_stay_through_a_training_of_one_or_two_processes(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    found, losses = [], []
    chosen = ("task=detection", *TINY["detection"], *NETWORK, *FROZEN, f"task.init={tmp_path}/weights.pt")
    for devices in (1, 2):
        run = trained(tmp_path / str(devices), *chosen, f"infra.devices={devices}")
        losses.append([line["train_loss"] for line in run.metrics()])
        saved, _ = checkpoint.load(run.checkpoint_path)
        assert saved is not None
        found.append(saved.model)
    assert losses[0] == pytest.approx(losses[1], rel=5e-4)
    for model in found:
        mine = {name.removeprefix("features.model."): value for name, value in model.items()}
        kept = {name for name in weights if name in mine and torch.equal(mine[name], weights[name])}
        frozen = (("conv1.", "bn1.", "layer1."), STATISTICS)
        expected = {name for name in weights if name.startswith(frozen[0]) or name.endswith(frozen[1])}
        idle = {name for name in kept if name.endswith("similarity_norm.bias")}  # softmax does not see it
        assert kept - idle == expected & mine.keys()
        assert len(kept - expected) <= 2


def test_lesas_recipe_is_the_published_one_and_defaults_are_left_out() -> None:
    recipe = read(configure("recipe=lesa_mask_rcnn")["recipe"])
    assert (recipe.frozen_stages, recipe.frozen_norms) == (1, True)
    plain = signature(configure("task=detection"))
    assert (
        signature(configure("+recipe.frozen_stages=0", "+recipe.frozen_norms=false", "task=detection"))
        == plain
    )
    assert signature(configure("task=detection", "+task.map_norms=true")) == plain
    with_norms, without = (
        loop.build_model(configure("task=detection", f"+task.map_norms={chosen}")).state_dict()
        for chosen in ("true", "false")
    )
    gone = {name for name in with_norms if name.startswith("features.norms.")}
    assert without.keys() == with_norms.keys() - gone
    assert all(torch.equal(without[name], with_norms[name]) for name in without)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ("task=detection", "+recipe.frozen_stages=1"),
            r"frozen_stages=1 without task.init.*\n.*frozen_stages=0",
        ),
        (("task=detection", "+recipe.frozen_norms=true"), r"without task.init.*\n.*frozen_norms=false"),
        (("task=detection", "+recipe.frozen_stages=3"), r"resnet_micro has 2 stages\n.*use 2 or less"),
        (("task=detection", "+recipe.frozen_stages=-1"), "is negative"),
        (("task=detection", "+recipe.frozen_norms=2"), "wrong type"),
        (("task=detection", "+task.map_norms=1"), "wrong type"),
        (("+recipe.frozen_stages=1",), r"for hosts that begin with trained weights\n.*task=detection"),
    ],
    ids=str,
)
def test_refused_at_submission(overrides: tuple[str, ...], told: str) -> None:
    config = configure("op=conv", "host=resnet_micro", *overrides)
    with pytest.raises(UserError, match=told):
        read(config["recipe"])
        tasks.of_run(config).check(config)
