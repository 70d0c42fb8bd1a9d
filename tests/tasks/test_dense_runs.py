"""Runs of the tasks with feature maps: pairs, resumption, several processes, sweeps, refusals."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tasks.configured import configure, trained
from tests.training.interrupted import StopAfter

from ablate import data, tasks
from ablate.execution.execute import execute
from ablate.results import examples
from ablate.store.folder import RunFolder
from ablate.store.manifest import load
from ablate.training import checkpoint, loop
from ablate.training.progress import Silent

SMALL = ("recipe=debug", "data.train=32", "data.validation=12", "data.test=12", "infra.tracking=none")
TINY = {
    "segmentation": (*SMALL, "infra.threads=1", "task.channels=8", "task.auxiliary_channels=8"),
    "detection": (
        *SMALL,
        "infra.threads=1",
        "task.channels=8",
        "task.hidden=8",
        "task.proposals=20",
        "task.training_proposals=20",
    ),
}
CASCADE = ("task.thresholds=[0.5,0.6,0.7]", "task.convolutions=1", "task.overlap_loss=true")


def tiny(task: str, *overrides: str) -> dict[str, Any]:
    return configure(f"task={task}", *TINY[task], "op=dwconv", "infra.device=cpu", *overrides)


def training_loss(task: str, model: torch.nn.Module, config: dict[str, Any]) -> torch.Tensor:
    splits = data.create(
        config["data"], seed=0, batch_size=2, augment={}, annotation=tasks.get(task).annotation
    )
    objective = tasks.get(task).objective(config, loop.read_recipe(config["recipe"]), splits)
    return objective(model.train(), next(iter(splits.train.epoch(0))), torch.contiguous_format)


@pytest.mark.parametrize("host", ["swin_micro", "resnet_micro", "convnext_micro", "nat_micro"])
@pytest.mark.parametrize("task", TINY)
def test_runs_of_one_seed_are_true_pairs_with_the_heads_and_every_weight_learns(task: str, host: str) -> None:
    configs = [tiny(task, f"op={op}", f"host={host}") for op in ("dwconv", "elsa")]
    models = [loop.build_model(config) for config in configs]
    first, second = (dict(model.state_dict()) for model in models)
    shared = [name for name in first if name in second and first[name].shape == second[name].shape]
    heads = [name for name in shared if name.startswith(("head", "auxiliary"))]
    assert len(heads) > 20
    assert all(torch.equal(first[name], second[name]) for name in heads)
    for model, config in zip(models, configs, strict=True):
        training_loss(task, model, config).backward()
        idle = [
            name for name, value in model.named_parameters() if value.requires_grad and value.grad is None
        ]
        assert not idle


@pytest.mark.parametrize("task", TINY)
def test_from_a_sweep_to_a_report(task: str, ablate: Callable, tmp_path: Path) -> None:
    metrics = tasks.get(task).metrics
    words = metrics.selecting.words
    done = ablate("train", "-m", f"task={task}", "op=dwconv,lsa", "seed=0,1", *TINY[task], "study.name=s")
    assert done.code == 0, done.err
    assert f"validation {words}" in done.err
    planned = load(tmp_path / "runs", "s")
    assert planned.metric == metrics.test_column
    result = RunFolder(tmp_path / "runs" / planned.runs[0].signature).result()
    assert result is not None
    assert {
        f"test_{metric.name}" for metric in metrics.all if " objects" not in metric.words
    } <= result.keys()
    assert 0 <= result[metrics.test_column] < 100
    assert f"best {words}" in ablate("status", "s").out
    assert ablate("report", "s").code == 0
    assert f"Test {words} (%)" in (tmp_path / "runs/studies/s/report/index.html").read_text()
    by_class = RunFolder(tmp_path / "runs" / planned.runs[0].signature).classes()[metrics.compares]
    known = [value for value in by_class.values() if value is not None]
    assert sum(known) / len(known) == pytest.approx(result[metrics.test_column], abs=1e-3)
    assert {"T-shirt", "ankle boot"} <= by_class.keys()
    assert "bag" in (tmp_path / "runs/studies/s/report/by_class.md").read_text()
    assert (tmp_path / "runs/studies/s/report/by_class.svg").exists()
    looked = ablate("look", planned.runs[0].signature)
    assert looked.code == 0, looked.err
    (picture,) = (line for line in looked.out.splitlines() if line.endswith("-predictions.png"))
    assert Path(picture).exists()
    run = RunFolder(tmp_path / "runs" / planned.runs[0].signature)
    kept = examples.read(run.examples_path)
    assert kept is not None
    assert len(kept.images) == 3
    assert kept.images[0].labels.present
    assert kept.names[-1] == "ankle boot"
    page = (tmp_path / "runs/studies/s/report/index.html").read_text()
    assert page.count("<image") >= 3 * 4  # three images, their labels, and the predictions of two conditions
    before = run.digests_path.read_bytes()
    done = ablate("evaluate", "--run", run.signature)
    assert done.code == 0, done.err
    figures = re.findall(r"([\w ,-]+?) (\d+\.\d+)", done.out.splitlines()[0].partition(": test ")[2])
    assert figures == re.findall(r"([\w ,-]+?) (\d+\.\d+)", done.out.splitlines()[1].partition(": ")[2])
    assert f"{result[metrics.test_column]:.2f}" in dict(figures).values()
    assert run.digests_path.read_bytes() == before


def test_an_evaluation_of_a_run_takes_settings_of_the_evaluation_only(
    ablate: Callable, tmp_path: Path
) -> None:
    done = ablate("train", "task=segmentation", "op=dwconv", *TINY["segmentation"])
    assert done.code == 0, done.err
    (folder,) = (path.parent for path in (tmp_path / "runs").glob("*/result.json"))
    run = ("evaluate", "--run", folder.name)
    mirrored = ablate(
        *run, "--split", "validation", "task.evaluation.flip=true", "task.evaluation.scales=[1,2]"
    )
    assert mirrored.code == 0, mirrored.err
    assert "validation loss" in mirrored.out
    assert "result.json" not in mirrored.out
    for arguments, words in (
        (("op.kernel=5",), "those of its configuration"),
        (("task.evaluation.mode=tiles",), "whole"),
        (("task.evaluation.flips=true",), "flip"),
        (("task.evaluation.scales=[",), "KEY=VALUE"),
        (("--model", "x"), "leave --model out"),
        (("--img-size", "3"), "leave --img-size out"),
    ):
        refused = ablate(*run, *arguments)
        assert refused.code == 2, (arguments, refused.out)
        assert words in refused.err, refused.err
        assert "Traceback" not in refused.err
    weights = dict(torch.load(folder / "checkpoint.pt", weights_only=True))
    weights["best"] = {
        name: value * float("nan") if value.is_floating_point() else value
        for name, value in weights["best"].items()
    }
    torch.save(weights, folder / "checkpoint.pt")
    refused = ablate(*run)
    assert refused.code == 2
    assert "hold nan or inf" in refused.err


@pytest.mark.parametrize("task", TINY)
def test_a_run_interrupted_within_an_epoch_ends_with_the_same_bits(task: str, tmp_path: Path) -> None:
    config = tiny(task, "host.drop_path_rate=0.2", "recipe.augment.horizontal_flip=0.5")
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    execute(tmp_path / "whole", config, Silent())
    with pytest.raises(KeyboardInterrupt):
        execute(tmp_path / "parts", config, StopAfter(3))
    execute(tmp_path / "parts", config, Silent())
    whole, parts = (RunFolder(tmp_path / name) for name in ("whole", "parts"))
    assert len(whole.metrics()) == 2
    assert parts.metrics_path.read_bytes() == whole.metrics_path.read_bytes()
    mine, theirs = (checkpoint.load(folder.checkpoint_path)[0] for folder in (parts, whole))
    assert mine is not None
    assert theirs is not None
    assert all(torch.equal(mine.model[name], theirs.model[name]) for name in theirs.model)


KILLED = """
import os, signal, sys
from ablate.training import checkpoint

save = checkpoint.save

def saved(path, state, guard):
    save(path, state, guard)
    if state.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)

checkpoint.save = saved
from ablate.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("task", ["classification", *TINY])
def test_a_run_killed_within_an_epoch_resumes_by_its_command_to_the_same_bits(
    task: str, ablate: Callable, tmp_path: Path
) -> None:
    """SIGKILL leaves no time for anything: the checkpoint of the third step is all that there is."""
    small = TINY.get(task, (*SMALL, "infra.threads=1", "data=synthetic", "data.channels=1"))
    drawn = ("host.drop_path_rate=0.2", "recipe.augment.horizontal_flip=0.5", "infra.device=cpu")
    command = ("train", f"task={task}", "op=dwconv", *small, *drawn)
    whole = ablate(*command, "infra.runs_dir=whole")
    assert whole.code == 0, whole.err
    parts = (*command, "infra.runs_dir=parts", "infra.checkpoint_minutes=1e-9")
    killed = subprocess.run([sys.executable, "-c", KILLED, *parts], cwd=tmp_path, check=False)
    assert killed.returncode == -signal.SIGKILL
    first, second = (
        RunFolder(next((tmp_path / name).glob("*/status.json")).parent) for name in ("parts", "whole")
    )
    left, _ = checkpoint.load(first.checkpoint_path)
    assert left is not None
    assert left.step == 3
    assert left.under_way is not None  # within an epoch
    assert first.state() == "running"
    done = ablate(*parts)
    assert done.code == 0, done.err
    assert first.status()["attempt"] == 2
    assert first.metrics_path.read_bytes() == second.metrics_path.read_bytes()
    mine, theirs = (checkpoint.load(folder.checkpoint_path)[0] for folder in (first, second))
    assert mine is not None
    assert theirs is not None
    assert all(torch.equal(mine.model[name], theirs.model[name]) for name in theirs.model)
    tests = [
        {name: value for name, value in (folder.result() or {}).items() if name.startswith("test_")}
        for folder in (first, second)
    ]
    assert tests[0] == tests[1] != {}


@pytest.mark.parametrize(
    ("task", "more"), [("segmentation", ()), ("detection", ()), ("detection", CASCADE)], ids=str
)
def test_two_processes_train_as_one_to_rounding(task: str, more: tuple[str, ...], tmp_path: Path) -> None:
    found = []
    for devices in (1, 2):
        chosen = (f"task={task}", "op=dwconv", *TINY[task], *more, f"infra.devices={devices}")
        found.append(trained(tmp_path / str(devices), *chosen).metrics())
    for mine, theirs in zip(*found, strict=True):
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], rel=5e-4)
        for name in [name for name in mine if name.startswith("validation")]:
            assert mine[name] == pytest.approx(theirs[name], rel=2e-3, abs=0.3)


REFUSED = {
    "data without maps": (["task=segmentation", "data=fashion_mini"], "this task needs map"),
    "data without objects": (["task=detection", "data=fashion_mini"], "this task needs instances"),
    "maps without the task": (["data=fashion_scenes"], "task=segmentation"),
    "a host of one size": (["task=segmentation", "host=volo_micro"], "no feature maps for dense tasks"),
    "a host of one size, for boxes": (["task=detection", "host=volo_micro"], "no feature maps for dense"),
    "a single value": (["task=segmentation", "recipe.batch_size=1"], "a single value"),
    "a figure that a result has not": (
        ["task=segmentation", "study.metric=validation_pixel_accuracy"],
        "test_pixel_accuracy",
    ),
    "mixup": (["task=segmentation", "recipe.mixup=0.5"], "use recipe.mixup=0"),
    "smoothed labels": (["task=detection", "recipe.label_smoothing=0.1"], "use recipe.label_smoothing=0"),
    "a pool of nothing": (["task=segmentation", "task.pools=[0]"], "task.pools"),
    "four stages": (["task=detection", "task.thresholds=[0.5,0.6,0.7,0.8]"], "task.thresholds has 4 numbers"),
    "an overlap of more than all": (["task=detection", "task.thresholds=[1.5]"], "task.thresholds is 1.5"),
    "no proposals": (["task=detection", "task.proposals=0"], "task.proposals is 0"),
    "masks without masks": (
        ["task=detection", "task.masks=false", "study.metric=test_mask_ap"],
        "use task.masks=true",
    ),
    "an unknown setting": (["task=segmentation", "+task.chanels=3"], "did you mean 'task.channels'?"),
    "a setting of another task": (["+task.channels=3"], "unknown setting of task=classification: 'channels'"),
    "two tasks in one study": (
        ["-m", "task=classification,segmentation"],
        "compares its runs by one metric, test_top1",
    ),
    "the metric of another task": (["task=segmentation", "study.metric=test_top1"], "test_miou"),
    "an unknown task": (["task=detektion"], "detection"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_way_out(case: str, ablate: Callable, tmp_path: Path) -> None:
    overrides, told = REFUSED[case]
    done = ablate("train", *overrides, "op=dwconv", "recipe=debug")
    assert done.code == 2, done.err
    assert told in done.err
    assert "→" in done.err
    assert not [*tmp_path.glob("runs/*/config.yaml"), *tmp_path.glob("runs/studies/*")]
