"""Weights that a dense task begins with: from runs, from studies, from files; and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from tests.tasks.configured import configure
from tests.tasks.test_dense_runs import TINY

from ablate import tasks
from ablate.errors import UserError
from ablate.store.folder import RunFolder
from ablate.store.identity import signature
from ablate.store.manifest import load
from ablate.tasks import initial
from ablate.training.loop import build_model

FIRST = ("recipe=debug", "recipe.epochs=1", "data.size=28", "infra.tracking=none", "infra.threads=1")


def classify(ablate: Callable, *overrides: str) -> None:
    size = ("data.train=32", "data.validation=8", "data.test=8")
    done = ablate("train", "-m", *FIRST, "data=synthetic", *size, "data.channels=1", *overrides)
    assert done.code == 0, done.err


def test_a_study_begins_with_the_weights_of_another_and_stays_paired(
    ablate: Callable, tmp_path: Path
) -> None:
    classify(ablate, "op=dwconv,lsa", "seed=0,1", "study.name=before")
    more = (*TINY["segmentation"], "task=segmentation", "recipe.epochs=1")
    varied = ("op=dwconv,lsa", "seed=0,1", "task.init=null,study:before", "study.name=after")
    done = ablate("train", "-m", *more, *varied)
    assert done.code == 0, done.err
    after, before = (load(tmp_path / "runs", name) for name in ("after", "before"))
    assert len({run.pair_key for run in after.runs}) == 4  # two operators, two ways to begin
    assert len({run.signature for run in after.runs}) == 8
    checked = 0
    for run in after.runs:
        config = RunFolder(tmp_path / "runs" / run.signature).config()
        assert signature(config) == run.signature
        if run.factors["task.init"] == "null":
            continue
        (source,) = (
            one for one in before.runs if one.seed == run.seed and one.factors["op"] == run.factors["op"]
        )
        weights = initial._read(RunFolder(tmp_path / "runs" / source.signature).checkpoint_path)
        model = build_model(config)
        tasks.of_run(config).begin(model, config)
        begun = model.features.model.state_dict()
        assert all(torch.equal(value, weights[name]) for name, value in begun.items())
        checked += len(begun) > 10
    assert checked == 4
    assert ablate("report", "after").code == 0
    damaged = RunFolder(tmp_path / "runs" / before.runs[0].signature).checkpoint_path
    contents = torch.load(damaged, weights_only=True)
    next(iter(contents["best"].values())).add_(1)
    torch.save(contents, damaged)
    changed = ablate("train", *more, "op=dwconv", "seed=0", "task.init=study:before", "study.name=anew")
    assert changed.code == 0, changed.err  # other weights are another run
    assert len(list((tmp_path / "runs").glob("*/config.yaml"))) == 4 + 8 + 1


def test_weights_are_read_from_a_file_under_authors_names_too(ablate: Callable, tmp_path: Path) -> None:
    classify(ablate, "op=lsa", "seed=3", "study.name=before")
    (run,) = load(tmp_path / "runs", "before").runs
    state = initial._read(RunFolder(tmp_path / "runs" / run.signature).checkpoint_path)
    theirs = {name.replace("operator.", ""): value for name, value in state.items()}
    torch.save({"model": state}, tmp_path / "ours.pt")
    torch.save({"model": theirs}, tmp_path / "theirs.pth")
    for name in ("ours.pt", "theirs.pth"):
        task = ("task=segmentation", *TINY["segmentation"], "recipe.epochs=1")
        done = ablate("train", *task, "op=lsa", f"task.init={tmp_path / name}")
        assert done.code == 0, done.err


def test_a_run_with_a_checkpoint_needs_its_first_weights_no_more(ablate: Callable, tmp_path: Path) -> None:
    classify(ablate, "op=lsa", "seed=0", "study.name=before")
    (run,) = load(tmp_path / "runs", "before").runs
    source = RunFolder(tmp_path / "runs" / run.signature).checkpoint_path
    for name in ("a.pt", "b.pt"):
        contents = torch.load(source, weights_only=True)
        next(iter(contents["best"].values())).add_(name == "b.pt")
        torch.save(contents, tmp_path / name)
    task = ("task=segmentation", *TINY["segmentation"], "op=lsa", "study.name=files")
    done = ablate("train", "-m", *task, "task.init=a.pt,b.pt")
    assert done.code == 0, done.err
    assert ablate("report", "files").code == 0  # each file is a condition
    for planned in load(tmp_path / "runs", "files").runs:
        folder = RunFolder(tmp_path / "runs" / planned.signature)
        figures = folder.result()
        folder.result_path.unlink()
        folder.status_path.unlink()
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).unlink()
    assert ablate("retry", "files").code == 0
    assert folder.result()["test_miou"] == figures["test_miou"]
    assert ablate("look", folder.signature).code == 0


SWIN = "swin_tiny_patch4_window7_224.ms_in1k"


def test_weights_of_timm_by_their_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create, path = timm.create_model, tmp_path / "published.pth"
    torch.manual_seed(1)
    published = create("swin_tiny_patch4_window7_224").state_dict()
    torch.save(published, path)

    def from_file(name: str, **kwargs: Any) -> torch.nn.Module:
        """timm's own loading, with a file as source, as there is no network."""
        if kwargs.get("pretrained"):
            kwargs["pretrained_cfg_overlay"] = {"file": str(path)}
        return create(name, **kwargs)

    monkeypatch.setattr(timm, "create_model", from_file)
    network = ("op=lsa", "host=swin_tiny", "data=coco_format", "data.num_classes=2")
    config = configure("task=detection", *network, f"task.init=timm:{SWIN}")
    initial.resolve(config)
    assert config["task"]["init"] == config["infra"]["weights"] == f"timm:{SWIN}"
    assert config["task"]["weights"] == initial.weights_digest(published)
    first, again = signature(config), dict(config, infra={**config["infra"], "weights": None})
    initial.resolve(again)  # as a frozen configuration that is requested once more
    assert signature(again) == first
    model = build_model(config)
    tasks.of_run(config).check(config)
    tasks.of_run(config).begin(model, config)
    begun = model.features.model.state_dict()
    merging = "layers.1.downsample.reduction.weight"
    assert torch.equal(begun[merging], published[merging])
    value = published["layers.0.blocks.0.attn.qkv.weight"][-96:]
    assert torch.equal(begun["layers.0.blocks.0.attn.value.weight"], value)
    published["norm.bias"] += 1
    torch.save(published, path)
    with pytest.raises(UserError, match=f"at timm:{SWIN} have the digest"):
        initial.resolve(config)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (SWIN, r"HF_HOME.*the path of a file"),
        (SWIN.partition(".")[0], rf"their names end in a tag\n.*use one of: timm:{SWIN}"),
        (SWIN.replace("ms_in1k", "in1k"), rf"use one of: timm:{SWIN}"),
        (SWIN.replace("swin", "swim"), rf"did you mean '{SWIN}'"),
    ],
    ids=["no network", "no tag", "another tag", "another name"],
)
def test_weights_that_timm_does_not_have_are_refused(
    given: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=told) as raised:
        initial.resolve(configure("task=detection", "op=lsa", f"task.init=timm:{given}"))
    assert len(str(raised.value)) < 1000


REFUSED = {
    "no such run": ("task.init=run:123456", "no run '123456'"),
    "no such study": ("task.init=study:befor", "before"),
    "no such file": ("task.init=weights.pt", "no checkpoint to read"),
    "not a checkpoint": ("task.init=notes.txt", "notes.txt"),
    "another operator": ("task.init=run:{run}", "weights of another network than dwconv in swin_micro"),
    "no run of this operator": ("task.init=study:before", "has 0 runs of op=dwconv"),
    "no such weights of timm": ("task.init=timm:resnet51.a1_in1k", "did you mean 'resnet5"),
    "nothing": ("task.init=''", "task.init=''"),
    "a digest alone": ("+task.weights=0123", "task.weights without task.init"),
}


def test_refused_with_a_way_out(ablate: Callable, tmp_path: Path) -> None:
    classify(ablate, "op=lsa", "seed=0", "study.name=before")
    (run,) = load(tmp_path / "runs", "before").runs
    (tmp_path / "notes.txt").write_text("no weights")
    for case, (override, told) in REFUSED.items():
        chosen = override.format(run=run.signature)
        done = ablate("train", "task=segmentation", *TINY["segmentation"], "op=dwconv", chosen)
        assert done.code == 2, (case, done.err)
        assert told in done.err, (case, done.err)
        assert "→" in done.err
    assert [path.parent.name for path in tmp_path.glob("runs/*/config.yaml")] == [run.signature]
