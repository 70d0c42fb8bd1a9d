"""Classification that begins with weights: `host.pretrained`, `recipe.freeze`, `recipe.layer_decay`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from tests.tasks.configured import configure
from torch import nn

from ablate import hosts, tasks
from ablate.errors import UserError
from ablate.store.folder import RunFolder
from ablate.store.identity import pair_key, signature
from ablate.store.manifest import load
from ablate.tasks import pretrained
from ablate.training import freezing, optimization
from ablate.training.loop import build_model
from ablate.training.recipe import read

SYNTHETIC = ("data=synthetic", "data.train=32", "data.validation=8", "data.test=8", "data.size=28")
FIRST = ("recipe=debug", "recipe.epochs=1", *SYNTHETIC, "infra.tracking=none", "infra.threads=1")
SWIN = "swin_tiny_patch4_window7_224"
CLASSIFIER = ["head.fc.bias", "head.fc.weight"]


def begun(*overrides: str) -> tuple[nn.Module, dict[str, Any] | None, dict[str, Any]]:
    """A network as its training would begin, the record of that, and its configuration."""
    config = configure(*SYNTHETIC, *overrides)
    if config["host"]["pretrained"] is not None:
        pretrained.resolve(config)
    task = tasks.of_run(config)
    task.check(config)
    model = build_model(config)
    return model, task.begin(model, config), config


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Weights that timm loads, by its own code, with a file as source: there is no network."""
    create, path = timm.create_model, tmp_path / "published.pth"
    torch.manual_seed(1)
    state = create(SWIN).state_dict()
    torch.save(state, path)

    def from_file(name: str, **kwargs: Any) -> nn.Module:
        if kwargs.get("pretrained"):
            kwargs["pretrained_cfg_overlay"] = {"file": str(path)}
        return create(name, **kwargs)

    monkeypatch.setattr(timm, "create_model", from_file)
    return state


def test_timms_weights_for_other_classes_channels_and_images(published: dict[str, torch.Tensor]) -> None:
    size = ("data.size=32", "data.channels=1", "data.num_classes=10")
    model, record, config = begun(
        "host=swin_tiny", "host.stages=[1]", "op=lsa", "host.pretrained=true", *size
    )
    assert config["host"]["pretrained"] == f"timm:{SWIN}.ms_in1k"
    assert record is not None
    own = model.state_dict()
    assert record["drawn"] == CLASSIFIER
    assert record["unused"] == CLASSIFIER
    tables = [name for name in own if name.endswith(".attn.relative_position_bias_table")]
    assert len(tables) == 10  # of timm's attention; the operator's window is 7×7 as before
    assert record["adapted"] == sorted(["patch_embed.proj.weight", *tables])
    assert record["loaded"] == len(own) - len(CLASSIFIER)
    gray = published["patch_embed.proj.weight"].sum(1, keepdim=True)
    assert torch.allclose(own["patch_embed.proj.weight"], gray, atol=1e-6)
    assert torch.equal(own["norm.weight"], published["norm.weight"])
    value = published["layers.0.blocks.0.attn.qkv.weight"][-96:]
    assert torch.equal(own["layers.0.blocks.0.attn.value.weight"], value)
    for name in (SWIN, f"{SWIN}.ms_in1k", "ms_in1k", f"timm:{SWIN}.ms_in1k"):
        again = configure(*SYNTHETIC, "host=swin_tiny", "op=lsa", f"host.pretrained={name}")
        if name == SWIN:
            with pytest.raises(UserError):
                pretrained.resolve(again)
        else:
            pretrained.resolve(again)
            assert again["host"]["pretrained"] == config["host"]["pretrained"]


def test_an_operator_that_the_weights_lack_is_drawn_and_this_is_recorded(
    published: dict[str, torch.Tensor],
) -> None:
    chosen = ("host=swin_tiny", "host.stages=[1,2]", "op=elsa", "data.channels=3", "data.size=32")
    model, record, _ = begun(*chosen, "host.pretrained=true")
    assert record is not None
    slots = [path for path, _, _ in hosts.operators(model)]
    of_slots = sorted(name for name in model.state_dict() if name.startswith(tuple(f"{s}." for s in slots)))
    assert record["drawn"] == sorted([*of_slots, *CLASSIFIER])
    assert all(name.startswith((*(f"{s}." for s in slots), "head.")) for name in record["unused"])
    drawn, _, _ = begun(*chosen)
    assert record["adapted"]
    assert all(name.endswith("relative_position_bias_table") for name in record["adapted"])
    for name, value in model.state_dict().items():
        expected = drawn.state_dict() if name in record["drawn"] else published
        assert name in record["adapted"] or torch.equal(value, expected[name]), name
    assert f"{len(record['drawn'])} drawn by the seed" in pretrained.described(record)


def test_from_a_run_and_a_study_whose_pairs_stay_pairs(ablate: Callable, tmp_path: Path) -> None:
    done = ablate("train", "-m", *FIRST, "op=lsa,dwconv", "seed=0,1", "study.name=before")
    assert done.code == 0, done.err
    more = ("data.num_classes=7", "op=lsa,dwconv", "seed=0,1", "study.name=after")
    done = ablate("train", "-m", *FIRST, *more, "host.pretrained=null,study:before")
    assert done.code == 0, done.err
    assert "begins with study:before" in done.out + done.err
    after = load(tmp_path / "runs", "after")
    assert len({run.pair_key for run in after.runs}) == 4
    assert len({run.signature for run in after.runs}) == 8
    for run in after.runs:
        folder = RunFolder(tmp_path / "runs" / run.signature)
        config = folder.config()
        assert signature(config) == run.signature
        record = (folder.environment() or {}).get("begins_with")
        assert (record is None) == (run.factors["host.pretrained"] == "null")
        if record is not None:
            assert record["drawn"] == CLASSIFIER
            assert "ablate.tasks.pretrained" in (folder.environment() or {})["code"]["digests"]
    source = load(tmp_path / "runs", "before").runs[0].signature
    one = ablate("train", *FIRST, "op=lsa", f"host.pretrained={source[:8]}", "seed=5")
    assert one.code == 0, one.err
    assert ablate("report", "after").code == 0


def test_without_weights_a_run_is_the_one_it_was() -> None:
    before = configure(*SYNTHETIC)
    for key in ("freeze", "layer_decay", "no_decay"):
        before["recipe"].pop(key)
    before["host"].pop("pretrained")
    now = configure(*SYNTHETIC)
    assert signature(now) == signature(before)
    assert pair_key(now) == pair_key(before)


REFUSED = {
    "no published weights": ("host.pretrained=true", "timm publishes no weights of host=swin_micro"),
    "no such file": ("host.pretrained=./weights.pt", "no checkpoint to read"),
    "no such run": ("host.pretrained=0123456789ab", "no run '0123456789ab'"),
    "no such weights": ("host.pretrained=resnet51.a1_in1k", "did you mean 'resnet5"),
    "another host": ("host.pretrained={file}", "are not those of swin_micro"),
    "nothing": ("host.pretrained=''", "give true, a tag"),
    "a number": ("host.pretrained=3", "give true, a tag"),
    "a digest alone": ("+host.pretrained_digest=01", "without host.pretrained"),
    "a place alone": ("+infra.weights=x", "infra.weights without weights"),
    "no parameter": ("recipe.freeze=[stem.*]", "'stem.*' matches no parameter"),
    "all parameters": ("recipe.freeze=['*']", "leaves nothing to train"),
    "no bias of this name": ("recipe.no_decay=[biass]", "recipe.no_decay: 'biass' matches no parameter"),
    "no decay": ("recipe.layer_decay=0", "more than 0 and 1 at most"),
    "another task": ("host.pretrained=true task=segmentation", "use task.init"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_way_out(case: str, ablate: Callable, tmp_path: Path) -> None:
    torch.save(hosts.create("resnet_micro", "conv").state_dict(), tmp_path / "resnet.pt")
    overrides, told = REFUSED[case]
    chosen = overrides.format(file=tmp_path / "resnet.pt").split()
    fixed = FIRST if "task=segmentation" not in chosen else ()
    done = ablate("train", *fixed, *chosen)
    assert done.code == 2, done.err
    assert told in done.err
    assert "→" in done.err
    assert not list(tmp_path.glob("runs/*/config.yaml"))


def test_what_is_frozen_keeps_weights_and_statistics(ablate: Callable, tmp_path: Path) -> None:
    chosen = (*FIRST, "host=resnet_micro", "op=conv", "data.channels=1")
    done = ablate("train", *chosen, "recipe.freeze=[conv1.*,bn1.*,layer1.*]", "recipe.weight_decay=0.5")
    assert done.code == 0, done.err
    (path,) = tmp_path.glob("runs/*/metrics.jsonl")
    folder = RunFolder(path.parent)
    drawn, best = build_model(folder.config()).state_dict(), torch.load(folder.checkpoint_path)["best"]
    still = {name for name, value in best.items() if torch.equal(value, drawn[name])}
    assert still >= {name for name in best if name.startswith(("conv1.", "bn1.", "layer1."))}
    assert any(name.endswith("running_var") for name in still)
    assert not {name for name in still if name.startswith("layer2.") and name.endswith("weight")}


def test_layers_learn_at_timms_rates_and_patterns_are_not_decayed() -> None:
    from timm.optim import param_groups_layer_decay

    config = configure(*SYNTHETIC, "recipe.layer_decay=0.5", "recipe.no_decay=[*.mlp.fc1.weight]")
    model = build_model(config)
    recipe = read(config["recipe"])
    optimizer = optimization.optimizer(model, recipe)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    ours = {
        names[id(one)]: (group["lr_scale"], group["weight_decay"])
        for group in optimizer.param_groups
        for one in group["params"]
    }
    theirs = {
        names[id(one)]: group["lr_scale"]
        for group in param_groups_layer_decay(model, layer_decay=0.5)
        for one in group["params"]
    }
    assert {name: scale for name, (scale, _) in ours.items()} == theirs
    assert len(set(theirs.values())) >= 4
    assert ours["head.fc.weight"] == (1.0, recipe.weight_decay)
    assert ours["layers.0.blocks.0.mlp.fc1.weight"][1] == 0
    assert ours["layers.0.blocks.0.mlp.fc2.weight"][1] == recipe.weight_decay
    schedule = optimization.schedule(optimizer, recipe, 10)
    schedule.step_update(5)
    for group in optimizer.param_groups:
        expected = optimization.learning_rate(optimizer) * group["lr_scale"]
        assert group["lr"] == pytest.approx(expected)


def test_a_layer_decay_without_layers_is_refused() -> None:
    recipe = read(configure("recipe.layer_decay=0.5")["recipe"])
    with pytest.raises(UserError, match="finds no layers"):
        optimization.optimizer(nn.Linear(2, 2), recipe)


def test_heads_of_a_dense_task_learn_at_the_full_rate() -> None:
    config = configure("task=segmentation", "recipe.layer_decay=0.5")
    model = build_model(config)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = optimization.optimizer(model, read(config["recipe"])).param_groups
    scales = {names[id(one)]: group["lr_scale"] for group in groups for one in group["params"]}
    assert scales.keys() == set(names.values())
    assert {scale for name, scale in scales.items() if not name.startswith("features.model.")} == {1.0}
    assert (
        scales["features.model.patch_embed.proj.weight"]
        < scales["features.model.layers.1.blocks.0.mlp.fc1.weight"]
    )


def test_a_batch_norm_without_parameters_is_named_by_its_statistics() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False), nn.BatchNorm1d(2))
    model.train()
    freezing.keep_statistics(model, ["1.*"])
    assert [module.training for module in model] == [True, False, True]


def test_a_run_that_goes_on_keeps_its_record(ablate: Callable, tmp_path: Path) -> None:
    torch.save(hosts.create("swin_micro", "lsa", stages=[1], in_chans=3).state_dict(), tmp_path / "w.pt")
    done = ablate("train", *FIRST, "op=lsa", f"host.pretrained={tmp_path / 'w.pt'}", "study.name=s")
    assert done.code == 0, done.err
    (path,) = tmp_path.glob("runs/*/metrics.jsonl")
    folder = RunFolder(path.parent)
    first = json.loads(folder.environment_path.read_text())["begins_with"]
    assert first["from"].startswith("file:")
    figures = folder.result()
    folder.result_path.unlink()
    folder.status_path.unlink()
    (tmp_path / "w.pt").unlink()
    assert ablate("retry", "s").code == 0
    again = RunFolder(path.parent)
    assert again.result()["test_loss"] == figures["test_loss"]
    assert (again.environment() or {})["begins_with"] == first
    assert ablate("look", folder.signature).code == 0
    assert ablate("evaluate", "--run", folder.signature).code == 0
