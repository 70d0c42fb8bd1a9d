"""Weights that a dense task begins with: from runs, from studies, from files; and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from tests.tasks.test_dense_runs import TINY

from ablate import tasks
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


REFUSED = {
    "no such run": ("task.init=run:123456", "no run '123456'"),
    "no such study": ("task.init=study:befor", "before"),
    "no such file": ("task.init=weights.pt", "no checkpoint to read"),
    "not a checkpoint": ("task.init=notes.txt", "notes.txt"),
    "another operator": ("task.init=run:{run}", "weights of another network than dwconv in swin_micro"),
    "no run of this operator": ("task.init=study:before", "has 0 runs of op=dwconv"),
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
